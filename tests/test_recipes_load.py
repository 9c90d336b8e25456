"""Every shipped recipe is read, and its plan holds wherever its data is."""

import os
from pathlib import Path

import pytest

from polyclinic import journey
from polyclinic.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
DATA = os.environ.get("POLYCLINIC_DATA")


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_is_called_like_its_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYCLINIC_DATA", str(tmp_path))
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.corpus.root in (".", str(tmp_path))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_names_no_place_outside_the_project(path: Path) -> None:
    settings = [line.split("#")[0] for line in path.read_text("utf-8").splitlines()]
    assert not [line for line in settings if any(word in line for word in ("../", ": /", "~/", '"/'))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_passes_its_check(path: Path) -> None:
    if "POLYCLINIC_DATA" in path.read_text("utf-8") and not DATA:
        pytest.skip("POLYCLINIC_DATA is not set")
    journey.check(load_recipe(path))
