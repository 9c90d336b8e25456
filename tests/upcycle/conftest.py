"""Tiny dense checkpoints with a tokenizer, and mixtures built from them once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "max_position_embeddings": 128,
}
LANGUAGES = ("zh", "en", "sw", "ar", "yo")  # the last is listed by no preset
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


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


def save_dense(folder: Path, kind: str = "qwen3", tied: bool = True, dtype: str = "fp32", size: str = "1GB") -> Path:
    """Save a dense model with its tokenizer; biases and norms stand off their zeros and ones."""
    torch.manual_seed(0)
    own = {"head_dim": 16} if kind == "qwen3" else {}
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["fever and cough", "发烧和咳嗽", "homa na kikohozi"], vocab_size=300)
    values = TINY | own | {"vocab_size": tokenizer.get_vocab_size(), "tie_word_embeddings": tied}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.to(DTYPES[dtype]).save_pretrained(folder, max_shard_size=size)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token="<pad>")  # noqa: S106
    fast.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return save_dense(tmp_path / "dense")


@pytest.fixture
def dense_of(tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: save_dense(tmp_path / kind, kind)


@pytest.fixture
def built_with(dense: Path) -> Callable[..., Built]:
    """Build the tiny Qwen3 model with other values of the section."""

    def make(name: str = "out", seed: int = 0, **values: Any) -> Built:
        out = dense.with_name(name)
        out.mkdir()
        section = UpcycleSection(**{"families": "apollo", "last_layers": 2, **values})
        return Built("qwen3", True, torch.float32, dense, out, build(dense, out, section, LANGUAGES, seed))

    return make


@pytest.fixture(
    scope="session",
    params=[
        (kind, tied, dtype, size)
        for kind in ("qwen2", "qwen3")
        for tied in (True, False)
        for dtype in DTYPES
        for size in ("1GB", "20KB")
    ],
    ids=lambda p: f"{p[0]}-{'tied' if p[1] else 'untied'}-{p[2]}-{p[3]}",
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    kind, tied, dtype, size = request.param
    root = tmp_path_factory.mktemp("built")
    dense, out = save_dense(root / "dense", kind, tied, dtype, size), root / "out"
    assert (len(list(dense.glob("*.safetensors"))) > 1) == (size == "20KB")
    assert json.loads((dense / "config.json").read_text("utf-8"))["tie_word_embeddings"] is tied
    out.mkdir()
    facts = build(dense, out, UpcycleSection(families="apollo", last_layers=2), LANGUAGES, 0)
    return Built(kind, tied, DTYPES[dtype], dense, out, facts)
