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
from tests.upcycle.conftest import (
    INNER,
    LAYERS,
    THETA,
    Tensors,
    config_of,
    published_forward,
    refusal,
    save_published,
    tensors_of,
)

from polyclinic.cli import main
from polyclinic.errors import CheckpointError, PolyclinicError, RecipeError
from polyclinic.families import fifty, load_preset
from polyclinic.moe.checkpoint import read_families
from polyclinic.upcycle.import_apollo import import_apollo

Edit = Callable[[Tensors], object]

# What is read

ALL = (0, 1, 2, 3)
CASES: dict[str, dict[str, Any]] = {
    "family": {},
    "specific": {
        "sparse": ALL, "mlp_only_layers": [], "share_flag": True, "num_experts": 12, "num_experts_per_tok": 1,
        "tie_word_embeddings": False,
    },
    "odd layers": {"sparse": (0, 2), "mlp_only_layers": [1, 3], "shards": 3, "torch_dtype": "bfloat16"},
    # The published class follows neither the scaling nor the window.
    "plain": {
        "language_gate": False, "norm_topk_prob": True, "tie_word_embeddings": False, "max_window_layers": 0,
        "rope_scaling": {"type": "linear", "factor": 4.0}, "use_sliding_window": True, "sliding_window": 8,
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
    assert {tensor.dtype for tensor in ours.values()} == {tensor.dtype for tensor in theirs.values()}


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
    assert [name for name, some in notes.items() if some] == ["plain"]
    assert [key in note for key, note in zip(("rope_scaling", "window"), notes["plain"], strict=True)] == [True, True]
    source = save_published(tmp_path / "source", sparse=(1, 3))  # a config class that writes the last two whatever
    (tmp_path / "out").mkdir()
    facts = import_apollo(source, tmp_path / "out", None)
    assert facts["sparse_layers"] == [1, 3]
    (note,) = facts["notes"]
    assert "[0, 1]" in note
    assert "[0, 2]" in note


def test_another_grouping_of_as_many_families_may_be_named(source: Path) -> None:
    (source.parent / "out").mkdir()
    assert import_apollo(source, source.parent / "out", "balanced")["preset"] == "balanced"
    said = read_families(source.parent / "out")
    assert [f["name"] for f in said["families"]] == [f.name for f in load_preset("balanced").families]


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


@pytest.mark.parametrize("part", ["shared_expert_gate.weight", "shared_expert.up_proj.weight"])
def test_a_part_of_a_shared_expert_that_is_absent_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    source = save_published(tmp_path / "source", share_flag=True)
    tensors = load_file(source / "model.safetensors")
    del tensors[f"model.layers.3.mlp.{part}"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert f"missing keys: model.layers.3.mlp.{part}" in refused(source, capsys)


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
