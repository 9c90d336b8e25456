"""A folder of the published form becomes a stock checkpoint that computes the same; its own code is never run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.upcycle.conftest import config_of, refusal, save_dense, tensors_of
from torch import Tensor
from torch.nn import functional

from polyclinic.cli import main
from polyclinic.errors import CheckpointError, PolyclinicError, RecipeError
from polyclinic.families import fifty, load_preset
from polyclinic.moe.checkpoint import read_families
from polyclinic.upcycle.import_apollo import import_apollo

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 32, 48, 4, 4, 2
HEAD, THETA, EPS = HIDDEN // HEADS, 1e6, 1e-6
Tensors = dict[str, Tensor]
Edit = Callable[[Tensors], object]
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


# What is read

ALL = (0, 1, 2, 3)
CASES: dict[str, dict[str, Any]] = {
    "family": {},
    "specific": {
        "sparse": ALL, "mlp_only_layers": [], "share_flag": True, "num_experts": 12, "num_experts_per_tok": 1,
        "tie_word_embeddings": False,
    },
    "odd layers": {"sparse": (0, 2), "mlp_only_layers": [1, 3], "shards": 3, "torch_dtype": "bfloat16"},
    "plain": {"language_gate": False, "norm_topk_prob": True, "tie_word_embeddings": False},
    # The published class follows neither.
    "scaled": {
        "rope_scaling": {"type": "linear", "factor": 4.0}, "use_sliding_window": True, "sliding_window": 8,
        "max_window_layers": 0,
    },
}  # fmt: skip
STOCK = """
import sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    tokens = load_file(folder + "/../tokens")["tokens"]
    with torch.no_grad():
        save_file({"logits": model.eval()(tokens[None]).logits[0]}, folder + "/../logits")
assert not [name for name in sys.modules if name.startswith("polyclinic")]
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Import each case and have one stock process, which never sees our package, compute its logits."""
    made = {}
    for name, case in CASES.items():
        root = tmp_path_factory.mktemp("published")
        source = save_published(root / "source", **case)
        tokens = torch.randint(config_of(source)["vocab_size"], (40,), generator=torch.Generator().manual_seed(1))
        save_file({"tokens": tokens}, root / "tokens")
        (root / "native").mkdir()
        made[name] = (root, import_apollo(source, root / "native", None))
    folders = [str(root / "native") for root, _ in made.values()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    cwd = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *folders], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest, imported: Any) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    root, facts = imported[request.param]
    return CASES[request.param], root, facts


def test_the_stock_loader_computes_the_published_forward(case: Any) -> None:
    values, root, _ = case
    source = root / "source"
    tokens = load_file(root / "tokens")["tokens"]
    sparse = values.get("sparse", (2, 3))
    expected = published_forward(config_of(source), tensors_of(source), sparse, tokens)
    got = load_file(root / "logits")["logits"]
    assert expected.std() > 0.5
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_routing_of_the_published_config_is_kept(case: Any) -> None:
    values, root, facts = case
    config = config_of(root / "native")
    assert config["norm_topk_prob"] is facts["norm_topk_prob"] is values.get("norm_topk_prob", False)
    assert config["num_experts_per_tok"] == facts["top_k"] == values.get("num_experts_per_tok", 2)
    assert config["num_experts"] == facts["num_experts"] == values.get("num_experts", 7)
    assert config["router_aux_loss_coef"] == 0.0
    assert config["tie_word_embeddings"] is values.get("tie_word_embeddings", True)
    assert config["rope_theta"] == THETA
    sparse = list(values.get("sparse", (2, 3)))
    assert facts["sparse_layers"] == sparse
    assert config["mlp_only_layers"] == [i for i in range(LAYERS) if i not in sparse]
    assert config["shared_expert_intermediate_size"] == (INNER if values.get("share_flag") else 0)
    assert facts["shared_expert"] is bool(values.get("share_flag"))


def test_every_tensor_is_the_published_one_bit_for_bit(case: Any) -> None:
    values, root, facts = case
    theirs, ours = tensors_of(root / "source"), tensors_of(root / "native")
    assert facts["dropped"] == (["lm_head.weight"] if values.get("tie_word_embeddings", True) else [])
    assert set(theirs) - set(ours) == set(facts["dropped"])
    for name in set(ours) & set(theirs):
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name])
    added = set(ours) - set(theirs)
    kinds = {name.split(".mlp.")[1] for name in added}
    parts = {f"shared_expert.{part}_proj.weight" for part in ("gate", "up", "down")} | {"shared_expert_gate.weight"}
    assert kinds == (set() if values.get("share_flag") else parts)
    assert {int(name.split(".")[2]) for name in added} == (
        set() if values.get("share_flag") else {*facts["sparse_layers"]}
    )
    assert not any(ours[name].any() for name in added)


def test_no_code_of_the_folder_is_run_copied_or_named(case: Any) -> None:
    _, root, _ = case
    assert not (root / "source" / "EXECUTED").exists()
    assert not list((root / "native").glob("**/*.py"))
    assert "auto_map" not in (root / "native" / "config.json").read_text("utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (root / "native" / name).read_bytes() == (root / "source" / name).read_bytes()


def test_the_blocks_are_proven_against_the_plain_loop(case: Any) -> None:
    _, _, facts = case
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]
    assert facts["largest_output"] > 0.1


@pytest.mark.parametrize(
    ("name", "preset", "trained_with"),
    [("family", "apollo", "hybrid"), ("specific", "apollo12", "language"), ("plain", "apollo", "topk")],
)
def test_the_family_map_is_the_published_grouping(imported: Any, name: str, preset: str, trained_with: str) -> None:
    root, facts = imported[name]
    said = read_families(root / "native")
    assert said["preset"] == facts["preset"] == preset
    grouping = load_preset(preset)
    assert said["expert_of"] == {code: grouping.expert_of(code) for code in fifty()}
    assert said["trained_with"] == trained_with
    assert said["imported_from"] == "upcycling-qwen2-moe"
    assert said["sparse_layers"] == facts["sparse_layers"]
    assert "made" not in said  # there is no parent to be compared with


def test_what_the_tensors_contradict_is_noted(imported: Any, tmp_path: Path) -> None:
    notes = {name: facts["notes"] for name, (_, facts) in imported.items()}
    assert [name for name, some in notes.items() if some] == ["scaled"]
    assert [key in note for key, note in zip(("rope_scaling", "window"), notes["scaled"], strict=True)] == [True, True]
    source = save_published(tmp_path / "source", sparse=(1, 3))  # a config class that writes the last two whatever
    (tmp_path / "out").mkdir()
    facts = import_apollo(source, tmp_path / "out", None)
    assert facts["sparse_layers"] == [1, 3]
    (note,) = facts["notes"]
    assert "[0, 1]" in note
    assert "[0, 2]" in note


def test_another_number_of_experts_takes_a_families_file(tmp_path: Path) -> None:
    source = save_published(tmp_path / "source", num_experts=2)
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nfamilies:\n- {name: a, languages: [en]}\n- {name: b, languages: [zh]}\n")
    for families, said in ((None, "no published grouping has 2 experts"), ("apollo", "7 families for 2 experts")):
        (tmp_path / "out").mkdir(exist_ok=True)
        assert said in refusal(lambda f=families: import_apollo(source, tmp_path / "out", f), RecipeError, 3)
        assert list((tmp_path / "out").iterdir()) == []
    assert import_apollo(source, tmp_path / "out", str(mine))["preset"] == "mine"
    assert read_families(tmp_path / "out")["expert_of"]["zh"] == 1


# What is refused


@pytest.fixture(scope="module")
def _published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("once") / "source")


@pytest.fixture
def source(_published_once: Path, tmp_path: Path) -> Path:
    """Return a private copy of the `family` folder; weights are linked until they are changed."""
    (tmp_path / "source").mkdir()
    for path in _published_once.iterdir():
        (tmp_path / "source" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "source"


def refused(source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command on a bad folder; return its one line, with nothing left behind."""
    root = source.parent
    there = sorted(p.name for p in root.iterdir())
    capsys.readouterr()
    code = main(["upcycle", "import-apollo", str(source), str(root / "new" / "out")])
    shown = capsys.readouterr()
    assert code in (3, 4)
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert sorted(p.name for p in root.iterdir()) == there
    assert not (source / "EXECUTED").exists()
    return shown.err


def change_config(source: Path, **changes: Any) -> None:
    kept = {k: v for k, v in (config_of(source) | changes).items() if v is not ...}
    (source / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"model_type": ...}, "model_type is 'None'"),
        ({"num_experts": ...}, "does not count them"),
        ({"num_experts": "7"}, "does not count them"),
        ({"num_experts_per_tok": 0}, "does not count them"),
        ({"num_experts_per_tok": 8}, "8 of 7 experts"),
        ({"num_experts": 12}, "missing keys: model.layers.2.mlp.experts.10"),
        ({"num_experts": 8}, "no published grouping has 8 experts"),
        ({"share_flag": True}, "missing keys: model.layers.2.mlp.shared_expert"),
        ({"num_hidden_layers": 3, "mlp_only_layers": [0]}, "unexpected keys: model.layers.3"),
        ({"num_hidden_layers": 5}, "missing keys: model.layers.4"),
        ({"num_hidden_layers": ...}, "num_hidden_layers"),
        ({"hidden_size": 64}, "shape"),
        ({"intermediate_size": 56}, "shape"),
        ({"vocab_size": 100}, "shape"),
        ({"tie_word_embeddings": False, "vocab_size": 100}, "shape"),
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"num_attention_heads": 5}, "k_proj.bias has shape [16]"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
    ],
)
def test_a_config_that_lies_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    change_config(source, **changes)
    assert said in refused(source, capsys)


def _rename(old: str, new: str) -> Edit:
    return lambda t: t.update({new: t.pop(old)})


EXPERT = "model.layers.3.mlp.experts.6.up_proj.weight"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.pop(EXPERT), f"missing keys: {EXPERT}"),
        (lambda t: t.pop("model.layers.3.mlp.gate.weight"), "missing keys: model.layers.3.mlp.gate.weight"),
        (lambda t: t.pop("model.layers.0.self_attn.q_proj.bias"), "missing keys: model.layers.0.self_attn.q_proj.bias"),
        (_rename(EXPERT, EXPERT.replace("experts.6", "experts.7")), EXPERT),
        (lambda t: t.update(more=torch.ones(2)), "unexpected keys: more"),
        (lambda t: t.update({"model.layers.2.mlp.shared_expert.up_proj.weight": torch.ones(48, 32)}), "shared_expert"),
        (lambda t: t.update({EXPERT: t[EXPERT][:40].clone()}), "shape [40, 32]"),
        (lambda t: t[EXPERT].fill_(torch.nan), f"{EXPERT} holds NaN"),
        (lambda t: t["model.norm.weight"].fill_(torch.inf), "infinity"),
        (lambda t: t.update({EXPERT: t[EXPERT].double()}), "F64"),
        (lambda t: t["lm_head.weight"].add_(1), "two that differ"),
        (lambda t: [t.pop(n) for n in list(t) if ".experts." in n], "holds no experts"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    source: Path, capsys: pytest.CaptureFixture[str], edit: Edit, said: str
) -> None:
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert said in refused(source, capsys)


def test_folders_that_are_no_safe_checkpoints_are_refused(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, config = source / "model.safetensors", (source / "config.json").read_text("utf-8")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(source, capsys)
    weights.rename(source / "pytorch_model.bin")
    assert "no safetensors" in refused(source, capsys)
    weights.write_bytes(whole)
    (source / "config.json").write_text("[1, 2]")
    assert "not a JSON object" in refused(source, capsys)
    (source / "config.json").unlink()
    assert "no config.json" in refused(source, capsys)
    (source / "config.json").write_text(config)
    (source / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in refused(source, capsys)


def test_the_command_publishes_the_whole_folder_at_once(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "new" / "out"
    assert main(["upcycle", "import-apollo", str(source), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sparse_layers"] == [2, 3]
    assert (out / "manifest.json").is_file()
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]


def test_nothing_is_written_for_a_folder_that_does_not_fit(source: Path) -> None:
    change_config(source, num_hidden_layers=5)
    out = source.parent / "out"
    out.mkdir()
    with pytest.raises(PolyclinicError) as caught:
        import_apollo(source, out, None)
    assert isinstance(caught.value, CheckpointError)
    assert list(out.iterdir()) == []
