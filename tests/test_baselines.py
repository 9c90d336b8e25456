"""A baseline is one key: it turns a recipe into the recipe of the comparison, or says why it cannot."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

import small
from polyclinic import recipe as recipes
from polyclinic.baselines import SAYS, applied
from polyclinic.cli import main
from polyclinic.errors import RecipeError
from polyclinic.journey import Summary, check, run
from polyclinic.moe.checkpoint import load_model, read_config
from polyclinic.progress import Silent
from polyclinic.recipe import Recipe, TrainingSection
from polyclinic.train.loop import fit

NAMES = [name for name in get_args(recipes.Baseline) if name != "none"]
STARTER = str(Path(__file__).parents[1] / "recipes" / "starter.yaml")
Capture = pytest.CaptureFixture[str]


def recipe(baseline: str, **changes: Any) -> Recipe:
    return small.recipe(baseline=baseline, **changes)


CHANGES: dict[str, dict[str, Any]] = {
    "dense": {},
    "one": {"top_k": 1},
    "two": {"families": "two", "top_k": 2},
    "total": {"top_k": 7},
    "first": {"place": "first"},
    "random": {"place": "random"},
    "every": {"place": "all", "last_layers": None},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_changes_its_keys_and_no_other(name: str) -> None:
    before, after = small.recipe().model_dump(), applied(recipe(name)).model_dump()
    assert after["upcycle"] == before["upcycle"] | CHANGES[name]
    assert {**after, "upcycle": None} == {**before, "upcycle": None, "baseline": name}


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_applied_twice_is_applied_once(name: str) -> None:
    once = applied(recipe(name))
    assert applied(once) == once
    check(once)


def test_without_a_baseline_a_recipe_stays_as_it_is() -> None:
    assert applied(small.recipe()) == small.recipe()
    assert set(SAYS) == set(NAMES)


@pytest.mark.parametrize(("name", "place"), [("first", "first"), ("random", "random"), ("every", "all")])
def test_layers_by_number_become_as_many_at_the_place(name: str, place: str) -> None:
    section = applied(recipe(name, upcycle={"layers": [0]})).upcycle
    assert (section.layers, section.place) == (None, place)
    assert section.last_layers == (None if place == "all" else 1)


def test_the_total_is_that_of_the_recipes_own_families() -> None:
    assert applied(recipe("total", upcycle={"families": "apollo12"})).upcycle.top_k == 12


def test_a_dense_model_has_nothing_to_balance() -> None:
    loop = {"steps": 1, "load_balance": 0.1, "z_loss": 0.1, "bias_balance": 0.1}
    train = applied(recipe("dense", train=loop)).train
    assert not train.balances
    assert train.steps == 1


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dense", {"specialise": {"steps": 1}}, "dense has no experts to specialise; remove specialise"),
        ("dense", {"train": {"steps": 1, "trains": "sparse"}}, "dense trains the whole model"),
        ("dense", {"train": {"steps": 1, "lora": {}}}, "dense trains the whole model"),
        ("two", {"train": {"steps": 1, "routing": "language"}}, "two has all its experts at work"),
        ("total", {"train": {"steps": 1, "routing": "language"}}, "total has all its experts at work"),
        ("two", {"upcycle": {"top_k": 3}}, "as many active parameters as top_k 2, the recipe has top_k 3"),
        ("two", {"train": {"steps": 1, "trains": "experts", "family": "th"}}, "two has families of its own"),
        ("one", {"train": {"steps": 1, "trains": "router"}}, "nothing would train"),
        ("first", {"upcycle": {"last_layers": 3}}, "3 of 2 layers"),
    ],
)
def test_a_baseline_that_the_recipe_contradicts_is_refused_in_one_line(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        check(recipe(name, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError):
        run(recipe(name, **changes), tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


# From the command line


def printed(capsys: Capture, *argv: str) -> Any:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES)
def test_check_prints_what_a_baseline_was_resolved_to(name: str, capsys: Capture) -> None:
    shown = printed(capsys, "check", STARTER, "--set", f"baseline={name}")
    assert shown["baseline"] == name
    assert {key: shown["upcycle"][key] for key in CHANGES[name]} == CHANGES[name]


def test_two_and_the_recipe_have_equal_active_parameters_and_total_has_all_at_work(capsys: Capture) -> None:
    facts = {
        name: printed(capsys, "run", STARTER, "--dry-run", "--set", f"baseline={name}")
        for name in ("none", "one", "two", "total")
    }
    active = {name: value["active_parameters"] for name, value in facts.items()}
    routers = {n: len(f["sparse_layers"]) * 128 * f["num_experts"] for n, f in facts.items()}
    assert active["two"] - routers["two"] == active["none"] - routers["none"]
    assert facts["two"]["total_parameters"] == active["two"]
    assert active["total"] == facts["total"]["total_parameters"] == facts["none"]["total_parameters"]
    assert active["one"] - routers["one"] == facts["one"]["dense_parameters"]


@pytest.mark.parametrize(("name", "layers"), [("first", [0, 1]), ("every", [0, 1, 2, 3, 4])])
def test_the_plan_of_a_baseline_says_where_the_experts_sit(name: str, layers: list[int], capsys: Capture) -> None:
    assert printed(capsys, "run", STARTER, "--dry-run", "--set", f"baseline={name}")["sparse_layers"] == layers


def test_layers_at_random_are_those_of_the_recipes_seed(capsys: Capture) -> None:
    argv = ["run", STARTER, "--dry-run", "--set", "baseline=random", "--set"]
    drawn = [tuple(printed(capsys, *argv, f"seed={seed}")["sparse_layers"]) for seed in (1, 1, 2, 3, 4, 5, 6)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert {len(layers) for layers in drawn} == {2}


def test_no_mixture_is_planned_for_a_dense_baseline(capsys: Capture) -> None:
    assert printed(capsys, "run", STARTER, "--dry-run", "--set", "baseline=dense") == {"baseline": "dense"}


# Walks


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixture") / "run"
    run(small.recipe(), out, Silent())
    return out


@pytest.fixture(scope="module")
def dense(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """The dense baseline in a copy of the mixture's run, so that it has its base."""
    out = Path(shutil.copytree(mixture, tmp_path_factory.mktemp("dense") / "run"))
    return out, run(recipe("dense"), out, Silent())


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "train" / "manifest.json").read_text("utf-8"))["facts"]


def test_the_dense_baseline_trains_the_base_on_as_many_tokens_and_builds_nothing(
    mixture: Path, dense: tuple[Path, Summary], tmp_path: Path
) -> None:
    folder, summary = dense
    assert summary.did == ["train", "evaluate"]
    assert read_config(folder / "train")["model_type"] == "qwen3"
    assert (facts(folder)["steps"], facts(folder)["tokens"]) == (facts(mixture)["steps"], facts(mixture)["tokens"])
    model, loop = (
        load_model(folder / "base"),
        small.recipe().train.model_dump(include=set(TrainingSection.model_fields)),
    )
    fit(model, mixture / "packed", TrainingSection(**loop), tmp_path, small.recipe().seed, Silent())
    for name, tensor in load_model(folder / "train").state_dict().items():
        assert tensor.equal(model.state_dict()[name])
    assert run(recipe("dense"), folder, Silent()).did == []


def test_the_report_of_the_dense_baseline_compares_two_dense_models(dense: tuple[Path, Summary]) -> None:
    folder, summary = dense
    html = summary.report.read_text("utf-8")
    assert f"dense: {SAYS['dense']}" in html
    assert summary.lines[0].split("   ")[-1].strip() == f"dense: {SAYS['dense']}"
    assert [line for line in summary.lines if " base, " in line and " dense" in line]
    assert "mixture" not in "".join(summary.lines)
    assert "Which expert serves" not in html
    assert "dense, trained further" in html
    scores = json.loads((folder / "evaluate" / "scores.json").read_text("utf-8"))
    assert scores["models"] == ["base", "dense"]
    assert scores["loss"]["base"] != scores["loss"]["dense"]
    steps = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert set(steps["steps"]) == {"corpus", "tokenizer", "packed", "base", "train", "evaluate"}
    assert steps["recipe"]["baseline"] == "dense"


@pytest.mark.parametrize(("name", "experts", "picks", "sparse"), [("two", 2, 2, [1]), ("every", 7, 2, [0, 1])])
def test_a_mixture_baseline_walks_to_a_report_that_names_it(
    mixture: Path, tmp_path: Path, name: str, experts: int, picks: int, sparse: list[int]
) -> None:
    folder = Path(shutil.copytree(mixture, tmp_path / "run"))
    before = hashlib.sha256((folder / "base" / "model.safetensors").read_bytes()).hexdigest()
    summary = run(recipe(name), folder, Silent())
    config = read_config(folder / "upcycle")
    assert (config["num_experts"], config["num_experts_per_tok"]) == (experts, picks)
    assert [i for i in range(2) if i not in config["mlp_only_layers"]] == sparse
    assert f"{name}: {SAYS[name]}" in summary.report.read_text("utf-8")
    shown = json.loads((folder / "manifest.json").read_text("utf-8"))["recipe"]
    assert shown["upcycle"] | CHANGES[name] == shown["upcycle"]
    assert {"upcycle", "train", "analyse", "evaluate"} <= set(summary.did)
    assert ("base" in summary.did) == (name == "two")  # other families, other packs; the base is trained again
    assert hashlib.sha256((folder / "base" / "model.safetensors").read_bytes()).hexdigest() == before
