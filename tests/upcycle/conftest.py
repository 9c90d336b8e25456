"""Tiny dense checkpoints with a tokenizer, mixtures built from them once, and folders of the published form."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from torch.nn import functional
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
STRAY = ("modeling_own.py", "pytorch_model.bin", "optimizer.pt", "README.md")  # what must stay where it is
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
    for name in STRAY:
        (dense / name).write_text("raise SystemExit")
    out.mkdir()
    facts = build(dense, out, UpcycleSection(families="apollo", last_layers=2), LANGUAGES, 0)
    return Built(kind, tied, DTYPES[dtype], dense, out, facts)


# The published form

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 32, 48, 4, 4, 2
HEAD, THETA, EPS = HIDDEN // HEADS, 1e6, 1e-6
Tensors = dict[str, Tensor]
# Code as the hub folders carry it; whoever runs it leaves a trace and fails.
CODE = """
from pathlib import Path
Path(__file__).with_name("EXECUTED").write_text("yes")
raise SystemExit("the folder's own code was run")
"""


def published_config(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """Return the keys that the published config class writes, with the values of the released 0.5B model."""
    return {
        "architectures": ["UpcyclingQwen2MoeForCausalLM"],
        "attention_dropout": 0.0,
        "attn_init_change": False,
        "auto_map": {
            "AutoConfig": "configuration_upcycling_qwen2_moe.UpcyclingQwen2MoeConfig",
            "AutoModelForCausalLM": "modeling_upcycling_qwen2_moe.UpcyclingQwen2MoeForCausalLM",
        },
        "decoder_sparse_step": 1,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "language_gate": True,
        "max_position_embeddings": 128,
        "max_window_layers": 24,
        "mlp_only_layers": [0, 1],
        "model_type": "upcycling-qwen2-moe",
        "moe_intermediate_size": INNER,
        "norm_topk_prob": False,
        "num_attention_heads": HEADS,
        "num_experts": 7,
        "num_experts_per_tok": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "output_router_logits": False,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "router_aux_loss_coef": 0.0,
        "share_flag": False,
        "shared_expert_intermediate_size": INNER,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.44.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
        **changes,
    }


def published_tensors(config: dict[str, Any], sparse: tuple[int, ...], seed: int = 0) -> Tensors:
    """Draw the tensors of the published class under its names; a tied head is there twice, as in its files."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, mean: float = 0.0) -> Tensor:
        return mean + 0.3 * torch.randn(shape, generator=generator)

    def ffn(stem: str) -> Tensors:
        parts = {"gate_proj": (INNER, HIDDEN), "up_proj": (INNER, HIDDEN), "down_proj": (HIDDEN, INNER)}
        return {f"{stem}.{part}.weight": draw(*shape) for part, shape in parts.items()}

    out = {"model.embed_tokens.weight": draw(config["vocab_size"], HIDDEN)}
    for i in range(LAYERS):
        stem, kv = f"model.layers.{i}", KV_HEADS * HEAD
        for part, rows in (("q", HIDDEN), ("k", kv), ("v", kv)):
            out[f"{stem}.self_attn.{part}_proj.weight"] = draw(rows, HIDDEN)
            out[f"{stem}.self_attn.{part}_proj.bias"] = draw(rows)
        out[f"{stem}.self_attn.o_proj.weight"] = draw(HIDDEN, HIDDEN)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            out[f"{stem}.{norm}.weight"] = draw(HIDDEN, mean=1.0)
        if i not in sparse:
            out |= ffn(f"{stem}.mlp")
            continue
        out[f"{stem}.mlp.gate.weight"] = draw(config["num_experts"], HIDDEN)
        for e in range(config["num_experts"]):
            out |= ffn(f"{stem}.mlp.experts.{e}")
        if config["share_flag"]:
            out |= ffn(f"{stem}.mlp.shared_expert")
            out[f"{stem}.mlp.shared_expert_gate.weight"] = draw(1, HIDDEN)
    out["model.norm.weight"] = draw(HIDDEN, mean=1.0)
    tied = out["model.embed_tokens.weight"].clone()
    out["lm_head.weight"] = tied if config["tie_word_embeddings"] else draw(config["vocab_size"], HIDDEN)
    return out


def published_forward(config: dict[str, Any], tensors: Tensors, sparse: tuple[int, ...], tokens: Tensor) -> Tensor:
    """Restate the published forward at test for one sequence of tokens; returns logits (tokens, vocabulary)."""
    t = {name: value.float() for name, value in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return t[f"{name}.weight"] * x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()

    def ffn(x: Tensor, stem: str) -> Tensor:
        gate, up = (x @ t[f"{stem}.{part}.weight"].T for part in ("gate_proj", "up_proj"))
        return (gate * torch.sigmoid(gate) * up) @ t[f"{stem}.down_proj.weight"].T

    def turned(x: Tensor) -> Tensor:
        angles = torch.arange(len(x))[:, None] * THETA ** (-torch.arange(0, HEAD, 2) / HEAD)
        cos, sin = (torch.cat([f(angles)] * 2, dim=1) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat([-x[:, HEAD // 2 :], x[:, : HEAD // 2]], dim=1) * sin

    def attention(x: Tensor, stem: str) -> Tensor:
        q, k, v = (x @ t[f"{stem}.{p}_proj.weight"].T + t[f"{stem}.{p}_proj.bias"] for p in "qkv")
        out = []
        for head in range(HEADS):
            mine, theirs = slice(head * HEAD, (head + 1) * HEAD), head // (HEADS // KV_HEADS)
            keys = slice(theirs * HEAD, (theirs + 1) * HEAD)
            scores = turned(q[:, mine]) @ turned(k[:, keys]).T / HEAD**0.5
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            out.append(functional.softmax(scores, dim=1) @ v[:, keys])
        return torch.cat(out, dim=1) @ t[f"{stem}.o_proj.weight"].T

    def mixture(x: Tensor, stem: str) -> Tensor:
        shares = functional.softmax(x @ t[f"{stem}.gate.weight"].T, dim=1)
        rows = []
        for token, share in zip(x, shares, strict=True):
            picks = sorted(range(len(share)), key=lambda e: -share[e].item())[: config["num_experts_per_tok"]]
            whole = share[picks].sum() if config["norm_topk_prob"] else 1.0
            rows.append(sum(share[e] / whole * ffn(token, f"{stem}.experts.{e}") for e in picks))
        out = torch.stack(rows)
        if config["share_flag"]:
            out = out + torch.sigmoid(x @ t[f"{stem}.shared_expert_gate.weight"].T) * ffn(x, f"{stem}.shared_expert")
        return out

    x = t["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        stem = f"model.layers.{i}"
        x = x + attention(norm(x, f"{stem}.input_layernorm"), f"{stem}.self_attn")
        y = norm(x, f"{stem}.post_attention_layernorm")
        x = x + (mixture if i in sparse else ffn)(y, f"{stem}.mlp")
    return norm(x, "model.norm") @ t["lm_head.weight"].T


def save_published(folder: Path, sparse: tuple[int, ...] = (2, 3), shards: int = 1, **changes: Any) -> Path:
    """Write a folder of the published form, with a tokenizer and code that must not be run."""
    dtype = torch.bfloat16 if changes.get("torch_dtype") == "bfloat16" else torch.float32
    save_dense(folder, "qwen2")
    (folder / "model.safetensors").unlink()
    config = published_config(config_of(folder)["vocab_size"], **changes)
    tensors = {n: t.to(dtype) for n, t in published_tensors(config, sparse).items()}
    (folder / "config.json").write_text(json.dumps(config))
    for kind in ("configuration", "modeling"):
        (folder / f"{kind}_upcycling_qwen2_moe.py").write_text(CODE)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    index = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(tensors)}
    for file in set(index.values()):
        save_file({n: t for n, t in tensors.items() if index[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder
