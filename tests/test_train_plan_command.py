"""`polyclinic train plan`: the recipes that ship, options over them, one line for what is wrong, nothing written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polyclinic.cli import main
from polyclinic.families import load_preset

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
# Parameters, by hand: Qwen2 report, arXiv 2407.10671, table 1, and seven experts in two layers.
PAPER = {"apollo-0.5b": 650_940_288, "apollo-1.5b": 2_039_191_040, "apollo-7b": 10_059_904_512}


@pytest.fixture(autouse=True)
def folder(inside: Path) -> Iterator[None]:
    yield
    assert list(inside.iterdir()) == []


def said(capsys: Capture, recipe: str, *options: str) -> Any:
    assert main(["train", "plan", str(RECIPES / f"{recipe}.yaml"), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_papers_recipes_are_planned_from_figures_that_ship(name: str, capsys: Capture) -> None:
    made = said(capsys, name)
    assert made["parameters"] == made["trained_parameters"] == PAPER[name]
    assert made["checkpoint_bytes"] == 12 * PAPER[name]
    assert made["checkpoints_bytes"] == 36 * PAPER[name]
    assert made["final_bytes"] == 4 * PAPER[name]
    assert [(row["gpus"], row["parallel"]) for row in made["rows"]] == [
        (1, "none"), (8, "ddp"), (8, "fsdp"), (64, "ddp"), (64, "fsdp"),
    ]  # fmt: skip
    for row in made["rows"]:
        assert (row["steps"], row["tokens"]) == (26800, 26800 * max(32, row["gpus"]) * 4096)  # a pack each, at least
        parts = [v for k, v in row["memory"].items() if k not in ("working", "total", "logits", "recomputed")]
        assert row["memory"]["total"] == sum(parts) + row["memory"]["working"]
        assert row["fits"] is (row["memory"]["total"] <= 80e9)


def test_what_the_advice_says_is_what_a_plan_with_it_says(capsys: Capture) -> None:
    large = (
        "--set",
        "train.batch_packs=32",
        "--set",
        "train.accumulate=1",
        "--set",
        "train.gradient_checkpointing=false",
    )
    found = said(capsys, "apollo-0.5b", "--gpus", "1", *large)["advice"][0]
    advised = [word for word in found.split() if word.startswith("train.")]
    named = {part.split("=")[0]: part for part in (*large[1::2], *advised)}
    options = [part for key in named.values() for part in ("--set", key)]
    changed = said(capsys, "apollo-0.5b", "--gpus", "1", *options)
    assert changed["advice"] == []
    assert changed["rows"][0]["fits"]
    assert f"({changed['rows'][0]['memory']['total'] / 1e9:.2f} GB)" in found
    assert changed["rows"][0]["step_tokens"] == 32 * 4096


def test_a_base_of_ones_own_is_planned_from_the_recipe(capsys: Capture) -> None:
    made = said(capsys, "starter")
    hidden, inner, layers, words = 128, 384, 5, 4096
    layer = 2 * hidden * (128 + 64) + 3 * hidden * inner + 2 * hidden + 2 * 32
    dense = words * hidden + layers * layer + hidden
    count = load_preset("balanced").num_experts
    assert made["parameters"] == dense + 2 * ((count - 1) * 3 * hidden * inner + count * hidden)
    assert made["rows"][0]["fits"]
    assert made["config"] == "a base trained by this recipe"


def test_options_reach_the_plan(capsys: Capture) -> None:
    plain = said(capsys, "starter", "--gpus", "4")
    assert [(row["gpus"], row["parallel"]) for row in plain["rows"]] == [(4, "ddp"), (4, "fsdp")]
    half = said(capsys, "starter", "--gpus", "4", "--mfu", "0.2")
    assert half["rows"][0]["hours"] == pytest.approx(2 * plain["rows"][0]["hours"])
    quick = said(capsys, "starter", "--gpus", "4", "--tflops", "670")
    assert quick["rows"][0]["hours"] == pytest.approx(plain["rows"][0]["hours"] / 10)
    small = said(capsys, "starter", "--gpus", "4", "--gpu-memory", "0.001")
    assert not any(row["fits"] for row in small["rows"])
    longer = said(capsys, "starter", "--gpus", "4", "--tokens", "10000000")
    assert [row["steps"] for row in longer["rows"]] == [-(-10_000_000 // (4 * 192))] * 2
    more = said(capsys, "starter", "--gpus", "4", "--set", "train.batch_packs=8")
    assert more["rows"][0]["memory"]["activations"] == 2 * plain["rows"][0]["memory"]["activations"]


def test_text_and_json_are_of_one_plan(capsys: Capture) -> None:
    made = said(capsys, "apollo-0.5b")
    assert main(["train", "plan", str(RECIPES / "apollo-0.5b.yaml")]) == 0
    shown = capsys.readouterr().out
    assert f"trained {made['trained_parameters']:,}" in shown
    for row in made["rows"]:
        assert f"{row['memory']['total'] / 1e9:,.2f}" in shown
    for each in (*made["advice"], *made["assumptions"]):
        assert each.split()[-1] in shown


def test_the_page_shows_what_the_command_says(capsys: Capture) -> None:
    assert main(["train", "plan", str(RECIPES / "apollo-0.5b.yaml")]) == 0
    page = (ROOT / "docs" / "train.md").read_text("utf-8")
    for line in capsys.readouterr().out.split("assumptions")[0].splitlines():
        assert line in page


@pytest.mark.parametrize(
    ("argv", "code", "what"),
    [
        (["none.yaml"], 3, "none.yaml: no such file"),
        (["starter", "--gpus", "0"], 2, "'0' is not a whole number of at least 1"),
        (["starter", "--gpus", "8,8"], 2, "names a number twice"),
        (["starter", "--gpus", "1,"], 2, "'' is not a whole number"),
        (["starter", "--mfu", "1.5"], 2, "'1.5' is more than 1"),
        (["starter", "--mfu", "0"], 2, "not a finite number above 0"),
        (["starter", "--gpu-memory", "nan"], 2, "not a finite number above 0"),
        (["starter", "--tflops", "-3"], 2, "not a finite number above 0"),
        (["starter", "--tokens", "0"], 2, "not a whole number of at least 1"),
        (["starter", "--set", "train.batch_paks=1"], 3, "did you mean 'batch_packs'"),
        (["starter", "--set", "upcycle.last_layers=9"], 3, "9 of 5 layers"),
        (["apollo-7b", "--set", "base.checkpoint=nowhere"], 4, "nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_one_line(argv: list[str], code: int, what: str, capsys: Capture) -> None:
    known = RECIPES / f"{argv[0]}.yaml"
    assert main(["train", "plan", str(known) if known.is_file() else argv[0], *argv[1:]]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert what in err


def test_a_base_without_a_config_is_refused(tmp_path_factory: pytest.TempPathFactory, capsys: Capture) -> None:
    empty = tmp_path_factory.mktemp("empty")
    assert main(["train", "plan", str(RECIPES / "apollo-7b.yaml"), "--set", f"base.checkpoint={empty}"]) == 4
    assert "config.json" in capsys.readouterr().err
