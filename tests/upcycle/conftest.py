"""Tiny dense checkpoints with a tokenizer, and mixtures built from them once."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build

PHRASES = ["fever and cough", "发烧和咳嗽", "homa na kikohozi", "حمى وسعال"]
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "llama": {"head_dim": 12},
    "mistral": {"sliding_window": None},
    "phi3": {},
}
LANGUAGES = ("zh", "en", "sw", "ar", "yo")  # the last is listed by no preset
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Built(NamedTuple):
    """A dense folder, the mixture made of it, and what `build` said."""

    kind: str
    tied: bool
    dtype: torch.dtype
    dense: Path
    out: Path
    facts: dict[str, Any]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def save_dense(
    folder: Path, kind: str = "qwen3", tied: bool = True, dtype: str = "fp32", size: str = "1GB", **changes: Any
) -> Path:
    """Save a dense model with its tokenizer; biases and norms stand off their zeros and ones."""
    torch.manual_seed(0)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(PHRASES, vocab_size=300)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token="<pad>")  # noqa: S106
    values = TINY | OWN[kind] | {"vocab_size": len(fast), "tie_word_embeddings": tied} | changes
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        model.to(DTYPES[dtype]).save_pretrained(folder, max_shard_size=size)
    fast.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    fast.save_pretrained(folder)
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text("utf-8")))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def refusal(work: Callable[[], object], kind: type[Exception], exit_code: int) -> str:
    """Return what an error of a kind says in its one line."""
    with pytest.raises(kind) as caught:
        work()
    assert caught.value.exit_code == exit_code  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="session")
def _dense_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dense(tmp_path_factory.mktemp("dense-once") / "dense")


@pytest.fixture
def dense(_dense_once: Path, tmp_path: Path) -> Path:
    """Return a private copy of the tiny Qwen3 model."""
    return Path(shutil.copytree(_dense_once, tmp_path / "dense"))


@pytest.fixture
def dense_of(tmp_path: Path) -> Callable[..., Path]:
    return lambda kind, **changes: save_dense(tmp_path / kind, kind, **changes)


@pytest.fixture
def built_with(dense: Path) -> Callable[..., Built]:
    """Build the tiny Qwen3 model, or another dense folder, with other values of the section."""

    def make(name: str = "out", seed: int = 0, parent: Path = dense, texts: Any = None, **values: Any) -> Built:
        out = dense.with_name(name)
        out.mkdir()
        layers = {} if "layers" in values else {"last_layers": 2}
        section = UpcycleSection(**{"families": "apollo", **layers, **values})
        kind = str(config_of(parent)["model_type"])
        return Built(kind, True, torch.float32, parent, out, build(parent, out, section, LANGUAGES, seed, texts))

    return make


# Every architecture, every precision, one file and many; both native forms tied and untied.
CASES = [
    ("qwen2", True, "bf16", "20KB"),
    ("qwen2", False, "fp32", "1GB"),
    ("qwen3", True, "fp32", "20KB"),
    ("qwen3", False, "bf16", "1GB"),
    ("llama", True, "fp16", "1GB"),
    ("mistral", False, "fp16", "20KB"),
    ("phi3", False, "bf16", "20KB"),
]


@pytest.fixture(scope="session", params=CASES, ids=lambda p: f"{p[0]}-{'tied' if p[1] else 'untied'}-{p[2]}-{p[3]}")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    kind, tied, dtype, size = request.param
    root = tmp_path_factory.mktemp("built")
    dense, out = save_dense(root / "dense", kind, tied, dtype, size), root / "out"
    assert (len(list(dense.glob("*.safetensors"))) > 1) == (size == "20KB")
    assert config_of(dense)["tie_word_embeddings"] is tied
    out.mkdir()
    facts = build(dense, out, UpcycleSection(families="apollo", last_layers=2), LANGUAGES, 0)
    return Built(kind, tied, DTYPES[dtype], dense, out, facts)
