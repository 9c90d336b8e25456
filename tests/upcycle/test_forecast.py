"""A forecast knows from config.json alone what a build would write, to the last parameter."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upcycle.conftest import config_of as raw_config
from tests.upcycle.conftest import refusal, tensors_of

from polyclinic.errors import CheckpointError, RecipeError
from polyclinic.families import load_preset
from polyclinic.recipe import UpcycleSection, load_recipe
from polyclinic.upcycle import forecast as forecast_module
from polyclinic.upcycle.forecast import config_of, forecast, lines

Build = Callable[..., Any]
RECIPES = Path(__file__).parents[2] / "recipes"
# hidden, inner, layers, heads, kv heads, vocabulary, tied: Qwen2 report, arXiv 2407.10671, table 1, and config.json.
SIZES = {
    "apollo-0.5b": ((896, 4864, 24, 14, 2, 151936, True), "651M", "520M"),
    "apollo-1.5b": ((1536, 8960, 28, 12, 2, 151936, True), "2.04B", "1.63B"),
    "apollo-7b": ((3584, 18944, 28, 28, 4, 152064, False), "10.06B", "8.02B"),
}


def expected(
    sizes: tuple[int, int, int, int, int, int, bool],
    experts: int,
    top_k: int,
    sparse: int,
    *,
    head: int = 0,
    biases: bool = True,
    head_norms: bool = False,
    shared: str = "none",
) -> tuple[int, int, int]:
    """Return dense, total and active parameters by formula; Qwen2-MoE always has a gate for its shared expert."""
    hidden, inner, layers, heads, kv_heads, vocabulary, tied = sizes
    head = head or hidden // heads
    width, kv_width = heads * head, kv_heads * head
    attention = 2 * hidden * width + 2 * hidden * kv_width + (width + 2 * kv_width if biases else 0)
    attention += 2 * head if head_norms else 0
    ffn = 3 * hidden * inner
    dense = vocabulary * hidden * (1 if tied else 2) + layers * (attention + ffn + 2 * hidden) + hidden
    beside = experts * hidden + (0 if head_norms else hidden) + (0 if shared == "none" else ffn)
    total = dense + sparse * ((experts - 1) * ffn + beside)
    return dense, total, total - sparse * (experts - top_k) * ffn


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_papers_recipes_give_the_papers_sizes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raw, source = config_of(str(recipe.base.checkpoint))
    facts = forecast(raw, name, recipe.upcycle)
    sizes, total, active = SIZES[name]
    counts = expected(sizes, 7, 2, 2)
    assert (facts["dense_parameters"], facts["total_parameters"], facts["active_parameters"]) == counts
    assert facts["bytes"] == 2 * facts["total_parameters"]
    shown = "\n".join(lines(facts, source))
    assert f"total     {total} parameters ({counts[1]:,})" in shown
    assert f"active    {active} parameters a token ({counts[2]:,})" in shown
    assert facts["sparse_layers"] == [sizes[2] - 2, sizes[2] - 1]
    assert facts["equal_by_design"] is False  # the paper leaves the weights as they are
    assert facts["differs_by"] == ["weights of the picks not normalised"]
    assert list(tmp_path.iterdir()) == []
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KB; the weights of the largest would take 20 GB


def test_the_figures_of_the_docs_are_these() -> None:
    counts = {name: expected(sizes, 7, 2, 2)[1:] for name, (sizes, _, _) in SIZES.items()}
    assert counts == {
        "apollo-0.5b": (650_940_288, 520_195_968),
        "apollo-1.5b": (2_039_191_040, 1_626_314_240),
        "apollo-7b": (10_059_904_512, 8_023_045_632),
    }


def test_a_forecast_is_what_build_writes(built: Any) -> None:
    section = UpcycleSection(families="apollo", last_layers=2)
    facts = forecast(raw_config(built.dense), built.dense, section)
    made, parent = tensors_of(built.out), tensors_of(built.dense)
    assert facts["total_parameters"] == sum(t.numel() for t in made.values())
    assert facts["dense_parameters"] == sum(t.numel() for t in parent.values())
    assert facts["bytes"] == built.facts["bytes"] == sum(t.nbytes for t in made.values())
    expert = sum(t.numel() for name, t in made.items() if ".experts.0." in name)
    assert facts["active_parameters"] == facts["total_parameters"] - 5 * expert
    assert facts["active_parameters"] == _one_token_uses({n: t.numel() for n, t in made.items()}, top_k=2)
    config = raw_config(built.out)
    assert facts["moe_type"] == config["model_type"]
    assert facts["dense_type"] == built.kind
    assert facts["dtype"] == str(built.dtype).removeprefix("torch.")
    assert facts["num_layers"] == config["num_hidden_layers"]
    same = ("sparse_layers", "num_experts", "equal_by_design", "differs_by", "notes")
    assert {key: facts[key] for key in same} == {key: built.facts[key] for key in same}
    families = json.loads((built.out / "polyclinic.json").read_text("utf-8"))["families"]
    assert facts["families"] == families


def _one_token_uses(sizes: dict[str, int], top_k: int) -> int:
    """Count what is used where a token is sent to experts 0 to top_k - 1."""
    idle = [f".experts.{e}." for e in range(top_k, 7)]
    return sum(size for name, size in sizes.items() if not any(part in name for part in idle))


def test_a_shared_expert_is_counted_and_always_active(built_with: Build, dense_of: Build) -> None:
    parent = dense_of("phi3")
    values = {"families": "balanced", "layers": [0, 2], "top_k": 1, "shared_expert": "copy"}
    facts = forecast(raw_config(parent), parent, UpcycleSection(**values))
    made = built_with(parent=parent, **values)
    sizes = {name: t.numel() for name, t in tensors_of(made.out).items()}
    assert facts["total_parameters"] == sum(sizes.values())
    assert facts["active_parameters"] == _one_token_uses(sizes, top_k=1)
    assert facts["sparse_layers"] == made.facts["sparse_layers"] == [0, 2]
    assert facts["bytes"] == made.facts["bytes"]
    assert facts["equal_by_design"] is made.facts["equal_by_design"] is False


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_the_counts_follow_the_formula_whatever_the_shape(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["qwen2", "qwen3", "llama"]))
    kv_heads, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    heads = kv_heads * groups
    hidden, inner, layers = (data.draw(st.integers(1, 5)) * 8 * heads, data.draw(st.integers(1, 9)) * 8, 5)
    vocabulary, tied = data.draw(st.integers(10, 300)), data.draw(st.booleans())
    head = data.draw(st.sampled_from([8, 10, 16])) if kind != "qwen2" else hidden // heads
    raw = {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
        "tie_word_embeddings": tied, **({} if kind == "qwen2" else {"head_dim": head}),
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    preset = load_preset(data.draw(st.sampled_from(["apollo", "apollo12", "glottolog"])))
    sparse = data.draw(st.sets(st.integers(0, layers - 1), min_size=1))
    top_k = data.draw(st.integers(1, preset.num_experts))
    shared = data.draw(st.sampled_from(["none", "zero", "copy"])) if kind != "qwen3" else "none"
    section = UpcycleSection(families=preset.name, layers=sorted(sparse), top_k=top_k, shared_expert=shared)
    facts = forecast(raw, "drawn", section)
    counts = expected(
        (hidden, inner, layers, heads, kv_heads, vocabulary, tied),
        preset.num_experts,
        top_k,
        len(sparse),
        head=head,
        biases=kind == "qwen2",
        head_norms=kind == "qwen3",
        shared=shared,
    )
    assert (facts["dense_parameters"], facts["total_parameters"], facts["active_parameters"]) == counts
    assert facts["bytes"] == 4 * counts[1]


def test_it_needs_no_weights_and_writes_nothing(dense: Path) -> None:
    whole = forecast(*config_of(str(dense)), UpcycleSection(families="apollo"))
    for path in dense.iterdir():
        if path.name != "config.json":
            path.unlink()
    raw, source = config_of(str(dense))
    assert forecast(raw, source, UpcycleSection(families="apollo")) == whole
    assert source == str(dense / "config.json")
    assert [p.name for p in dense.iterdir()] == ["config.json"]


def test_a_folder_comes_before_figures_of_the_same_name(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dense.parent)
    assert config_of("Qwen/Qwen2-0.5B")[0]["num_hidden_layers"] == 24
    (dense.parent / "Qwen").mkdir()
    dense.rename(dense.parent / "Qwen" / "Qwen2-0.5B")
    assert config_of("Qwen/Qwen2-0.5B")[0]["num_hidden_layers"] == 3


@pytest.mark.parametrize("name", ["nowhere", "no/such-model", "../up"])
def test_a_base_that_is_nowhere_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in refusal(lambda: config_of(name), CheckpointError, 4)


def test_what_build_refuses_a_forecast_refuses(dense: Path) -> None:
    raw = raw_config(dense)

    def of(changes: dict[str, Any], **values: Any) -> Callable[[], object]:
        return lambda: forecast({**raw, **changes}, dense, UpcycleSection(**{"families": "apollo", **values}))

    assert "top_k 8 of 7" in refusal(of({}, top_k=8), RecipeError, 3)
    assert "4 of 3 layers" in refusal(of({}, last_layers=4), RecipeError, 3)
    assert "no shared expert" in refusal(of({}, shared_expert="zero"), RecipeError, 3)
    assert "gemma2" in refusal(of({"model_type": "gemma2"}), CheckpointError, 4)
    assert "float" in refusal(of({"dtype": "int8"}), CheckpointError, 4)


def test_the_text_names_layers_families_start_and_notes(dense_of: Build) -> None:
    parent = dense_of("mistral", sliding_window=8)
    facts = forecast(raw_config(parent), parent, UpcycleSection(families="apollo", layers=[1], noise=0.5))
    shown = lines(facts, "somewhere")
    assert shown[0] == "config    somewhere"
    assert "form      mistral -> qwen2_moe, float32" in shown
    assert "layers    3: 2 dense, 1 sparse (1)" in shown
    assert "experts   7 in each sparse layer, 2 for each token" in shown
    start = "start     differs from the parent by choice: noise of 0.5 standard deviations on the experts"
    assert start in shown
    for number, family in enumerate(load_preset("apollo").families):
        assert f"  expert {number}  {family.name}: {' '.join(family.languages)}" in shown
    assert any(line.startswith("note      attention window of 8 tokens") for line in shown)
    assert f"({facts['total_parameters']:,})" in shown[2]


def test_a_plan_that_the_stock_class_does_not_expect_is_an_error(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = forecast_module.plan_tensors
    monkeypatch.setattr(forecast_module, "plan_tensors", lambda *args: whole(*args)[1:])
    section = UpcycleSection(families="apollo")
    assert "disagree on " in refusal(lambda: forecast(raw_config(dense), dense, section), CheckpointError, 4)
