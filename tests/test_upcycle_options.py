"""`polyclinic upcycle build`: each option reaches what is built, and a plan keeps its word."""

import io
import json
import shutil
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from damage import listing, refusal
from polyclinic.cli import main
from polyclinic.families import load_preset

Capture = pytest.CaptureFixture[str]
PARTS = ("gate_proj", "up_proj", "down_proj")
RECIPE = "name: r\nseed: 5\ncorpus: {{texts: [{{starter: true}}]{languages}}}\nbase: {{checkpoint: dense}}\n"
RECIPE += "train: {{steps: 1, routing: {routing}}}\nupcycle: {{{section}}}\n"


pytestmark = pytest.mark.usefixtures("copies")


class Made(NamedTuple):
    """What a build said and left."""

    facts: dict[str, Any]
    config: dict[str, Any]
    families: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes]


@cache
def plain() -> Made:
    """Build without options, once: the parent is always the same."""
    return built()


def built(*options: str, dense: str = "dense") -> Made:
    """Build with options, take in all that was made, and leave nothing of it."""
    with redirect_stdout(io.StringIO()) as said:
        assert main(["upcycle", "build", dense, "out", "--json", *options]) == 0
    out = Path("out")
    texts = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.json"}
    config, families = (json.loads(texts[f"{name}.json"]) for name in ("config", "polyclinic"))
    tensors = {n: t.clone() for p in out.glob("*.safetensors") for n, t in load_file(p).items()}
    shutil.rmtree(out)
    return Made(json.loads(said.getvalue()), config, families, tensors, texts)


def planned(*options: str, dense: str = "dense") -> Any:
    """Return what --dry-run says as JSON, having written nothing."""
    before = listing()
    with redirect_stdout(io.StringIO()) as said:
        assert main(["upcycle", "build", dense, "--dry-run", "--json", *options]) == 0
    assert listing() == before
    return json.loads(said.getvalue())


def routers(made: Made) -> list[Tensor]:
    return [t for name, t in sorted(made.tensors.items()) if name.endswith("mlp.gate.weight")]


def of_expert(made: Made, layer: int, expert: int) -> list[Tensor]:
    return [made.tensors[f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"] for part in PARTS]


def parent(layer: int) -> list[Tensor]:
    found = load_file("dense/model.safetensors")
    return [found[f"model.layers.{layer}.mlp.{part}.weight"] for part in PARTS]


# Options


@pytest.mark.parametrize(
    ("options", "dense_layers"),
    [
        ([], [0]),
        (["--last-layers", "1"], [0, 1]),
        (["--last-layers", "3"], []),
        (["--layers", "0,2"], [1]),
        (["--layers", "2,0"], [1]),
        (["--layers", "1"], [0, 2]),
        (["--place", "first"], [2]),
        (["--place", "first", "--last-layers", "1"], [1, 2]),
        (["--place", "last"], [0]),
        (["--place", "all"], []),
    ],
)
def test_the_layers_that_are_named_become_sparse_and_no_others(options: list[str], dense_layers: list[int]) -> None:
    made = built(*options)
    sparse = [i for i in range(3) if i not in dense_layers]
    assert made.config["mlp_only_layers"] == dense_layers
    assert made.facts["sparse_layers"] == made.families["sparse_layers"] == sparse
    assert {int(n.split(".")[2]) for n in made.tensors if ".experts." in n} == set(sparse)


@pytest.mark.parametrize("start", ["zero", "copy"])
def test_a_shared_expert_begins_silent_or_as_the_parent(start: str) -> None:
    made = built("--shared-expert", start)
    assert made.config["shared_expert_intermediate_size"] == 40
    assert made.families["made"]["shared_expert"] == start
    for layer in (1, 2):
        shared = [made.tensors[f"model.layers.{layer}.mlp.shared_expert.{part}.weight"] for part in PARTS]
        expected = parent(layer) if start == "copy" else [*parent(layer)[:2], torch.zeros(32, 40)]
        assert all(map(torch.equal, shared, expected))
    assert made.facts["equal_by_design"] is (start == "zero")


def test_a_shared_expert_without_a_word_is_the_silent_one_and_without_the_option_there_is_none() -> None:
    assert built("--shared-expert").families["made"]["shared_expert"] == "zero"
    assert plain().config["shared_expert_intermediate_size"] == 0
    assert plain().families["made"]["shared_expert"] == "none"


def test_routers_are_drawn_zero_or_measured_as_asked_for() -> None:
    drawn, zero, measured = (built("--router-init", how) for how in ("random", "zero", "centroid"))
    assert drawn.files == plain().files
    assert [m.families["made"]["router_init"] for m in (drawn, zero, measured)] == ["random", "zero", "centroid"]
    assert len(routers(drawn)) == len(routers(zero)) == len(routers(measured)) == 2
    assert not any(t.any() for t in routers(zero))
    for random, rows in zip(routers(drawn), routers(measured), strict=True):
        assert 0.01 < random.std() < 0.03
        assert not torch.isclose(random, rows).all(1).any()  # every family has text
        assert rows.norm(dim=1).std() < 1e-3 * rows.norm(dim=1).mean()


def test_noise_moves_every_expert_by_its_share_and_nothing_else() -> None:
    made = built("--noise", "0.25")
    changed = {name for name, tensor in made.tensors.items() if not torch.equal(tensor, plain().tensors[name])}
    assert changed == {name for name in made.tensors if ".experts." in name}
    for expert in range(7):
        for moved, whole in zip(of_expert(made, 1, expert), parent(1), strict=True):
            assert abs((moved - whole).std() / whole.std() - 0.25) < 0.03
    assert made.facts["differs_by"] == ["noise of 0.25 standard deviations on the experts"]
    assert (made.families["made"]["noise"], made.families["made"]["reinit"]) == (0.25, 0.0)


def test_reinit_draws_its_share_of_inner_units_again() -> None:
    made = built("--reinit", "0.5")
    for expert in range(7):
        gate, up, down = (moved != whole for moved, whole in zip(of_expert(made, 2, expert), parent(2), strict=True))
        assert gate.any(1).sum() == up.any(1).sum() == down.any(0).sum() == 20
        assert torch.equal(gate.any(1), down.any(0))
    assert made.facts["differs_by"] == ["50% of the experts' inner units drawn again"]


def test_weights_of_the_picks_stay_as_they_are_where_that_is_asked_for() -> None:
    made = built("--unnormalised")
    assert (made.config["norm_topk_prob"], plain().config["norm_topk_prob"]) == (False, True)
    assert made.facts["differs_by"] == ["weights of the picks not normalised"]
    assert (made.facts["equal_by_design"], plain().facts["equal_by_design"]) == (False, True)


@pytest.mark.parametrize("spread", [["--noise", "0.1"], ["--reinit", "0.5"]], ids=" ".join)
def test_a_router_of_zeros_needs_experts_that_differ_or_families(spread: list[str], capfd: Capture) -> None:
    zero = ["upcycle", "build", "dense", "out", "--router-init", "zero", "--routing"]
    code, line = refusal([*zero, "topk"], capfd)
    assert (code, "add noise or reinit, or route by hybrid" in line) == (3, True)
    assert planned(*zero[4:], "topk", *spread)["num_experts"] == 7
    assert planned(*zero[4:], "language")["num_experts"] == planned(*zero[4:], "hybrid")["num_experts"] == 7


def test_the_seed_decides_all_that_is_drawn() -> None:
    assert built("--seed", "0").files == plain().files
    other = built("--seed", "1", "--noise", "0.1")
    same = {name for name, tensor in other.tensors.items() if torch.equal(tensor, plain().tensors[name])}
    assert not any("experts." in name or name.endswith("mlp.gate.weight") for name in same)
    assert other.families["made"]["seed"] == 1


def test_families_decide_the_experts_and_whom_they_serve() -> None:
    Path("mine.yaml").write_text("name: mine\nfamilies: [{name: a, languages: [en]}, {name: b, languages: [ro, ja]}]")
    made = built("--families", "mine.yaml", "--experts", "2", "--top-k", "1")
    assert (made.config["num_experts"], made.config["num_experts_per_tok"]) == (2, 1)
    preset = load_preset("mine.yaml")
    assert [f["name"] for f in made.families["families"]] == ["a", "b"]
    assert {"en", "ro", "ja"} < set(made.families["expert_of"])  # Romanian is none of the fifty
    assert made.families["expert_of"] == {code: preset.expert_of(code) for code in made.families["expert_of"]}


# A plan and what is built


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a section of a recipe whose values do not contradict each other."""
    families, count = draw(st.sampled_from([("apollo", 7), ("apollo12", 12), ("glottolog", None)]))
    layers = draw(st.sets(st.integers(0, 2), min_size=1))
    spread = draw(st.sampled_from([{}, {"noise": 0.125}, {"reinit": 0.5}]))
    return {
        "families": families,
        **({"num_experts": count} if count and draw(st.booleans()) else {}),
        **draw(st.sampled_from([{"layers": sorted(layers)}, {"last_layers": len(layers)}])),
        "top_k": draw(st.integers(1, 7)),
        "norm_topk_prob": draw(st.booleans()),
        **draw(st.sampled_from([{}, {"shared_expert": "zero"}, {"shared_expert": "copy"}])),
        "router_init": draw(st.sampled_from(["random", "zero"])),
        **spread,
    }


NAMED = {"num_experts": "experts", "norm_topk_prob": "unnormalised"}


def as_options(section: dict[str, Any]) -> list[str]:
    """Return a section as options of the command line."""
    out = []
    for key, value in section.items():
        name = "--" + NAMED.get(key, key).replace("_", "-")
        shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        out += [name, shown] if key != "norm_topk_prob" else [] if value else [name]
    return out


@given(section=choices(), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_options_recipe_and_plan_are_one(section: dict[str, Any], seed: int) -> None:
    """The same choices by options and by a recipe give the same bytes, which are those that were forecast."""
    options = [*as_options(section), "--seed", str(seed)]
    made, plan = built(*options), planned(*options)
    Path("r.yaml").write_text(RECIPE.format(languages="", routing="hybrid", section=json.dumps(section)[1:-1]))
    assert built("--seed", str(seed), dense="r.yaml").files == made.files
    assert planned(dense="r.yaml") == plan
    assert plan["total_parameters"] == sum(t.numel() for t in made.tensors.values())
    assert plan["bytes"] == made.facts["bytes"] == sum(t.nbytes for t in made.tensors.values())
    expert = sum(t.numel() for t in parent(1))
    idle = (plan["num_experts"] - section["top_k"]) * len(plan["sparse_layers"])
    assert plan["active_parameters"] == plan["total_parameters"] - idle * expert
    for key in ("sparse_layers", "num_experts", "equal_by_design", "differs_by", "notes"):
        assert plan[key] == made.facts[key]
    kept = {"norm_topk_prob": "normalise"}
    for key in {*section} & {"norm_topk_prob", "shared_expert", "router_init", "noise", "reinit"}:
        assert made.families["made"][kept.get(key, key)] == section[key]
    assert made.families["made"]["seed"] == seed


OVER = {
    "layers": (["--layers", "0"], "last_layers: 1", {"layers": [0]}),
    "last layers": (["--last-layers", "1"], "layers: [0, 1]", {"last_layers": 1}),
    "place over layers": (["--place", "first"], "layers: [1]", {"place": "first"}),
    "place over a count": (["--place", "all"], "last_layers: 1", {"place": "all"}),
    "layers over a place": (["--layers", "1"], "place: first", {"layers": [1]}),
    "a count over all": (["--last-layers", "1"], "place: all", {"last_layers": 1}),
    "noise": (["--noise", "0.25"], "reinit: 0.5", {"noise": 0.25}),
    "reinit": (["--reinit", "0.5"], "noise: 0.25", {"reinit": 0.5}),
    "families": (["--families", "apollo12"], "num_experts: 7", {"families": "apollo12"}),
    "top-k": (["--top-k", "1"], "top_k: 3, families: apollo", {"top_k": 1, "families": "apollo"}),
    "unnormalised": (["--unnormalised"], "norm_topk_prob: true", {"norm_topk_prob": False}),
}


@pytest.mark.parametrize(("options", "section", "same"), OVER.values(), ids=OVER)
def test_an_option_stands_over_its_key_of_a_recipe_and_over_the_key_it_is_instead_of(
    options: list[str], section: str, same: dict[str, Any]
) -> None:
    Path("r.yaml").write_text(RECIPE.format(languages="", routing="hybrid", section=section))
    assert planned(*options, dense="r.yaml") == planned(*as_options(same))


def test_a_recipe_gives_its_languages_seed_and_routing(capfd: Capture) -> None:
    Path("r.yaml").write_text(RECIPE.format(languages=", languages: [eng, ro]", routing="topk", section="layers: [0]"))
    made = built(dense="r.yaml")
    assert {"en", "ro"} < set(made.families["expert_of"])
    assert "eng" not in made.families["expert_of"]  # its other name
    assert made.families["made"]["seed"] == 5
    assert made.facts["sparse_layers"] == [0]
    code, line = refusal(["upcycle", "build", "r.yaml", "out", "--router-init", "zero"], capfd)
    assert (code, "under plain top-k" in line) == (3, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--place", "first", "--layers", "1"], "give layers or place first, not both"),
        (["--place", "all", "--last-layers", "1"], "leave last_layers out"),
        (["--place", "frist"], "did you mean 'first'?"),
    ],
)
def test_places_that_contradict_other_options_are_refused(options: list[str], words: str, capfd: Capture) -> None:
    code, line = refusal(["upcycle", "build", "dense", "out", *options], capfd)
    assert (code, words in line) == (2, True)


def test_layers_at_random_are_those_of_the_seed() -> None:
    drawn = [planned("--place", "random", "--seed", str(seed))["sparse_layers"] for seed in (3, 3, 4, 5, 6, 7)]
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn))) > 1
    assert built("--place", "random", "--seed", "3").facts["sparse_layers"] == drawn[0]


def test_a_recipe_whose_baseline_is_dense_builds_no_mixture(capfd: Capture) -> None:
    Path("r.yaml").write_text(RECIPE.format(languages="", routing="hybrid", section="") + "baseline: dense\n")
    code, line = refusal(["upcycle", "build", "r.yaml", "out"], capfd)
    assert (code, "builds no mixture" in line) == (2, True)
