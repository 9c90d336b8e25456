"""A recipe: strict, frozen, and clear about the first thing that is wrong with it."""

import copy
import json
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from polyclinic import recipe as recipes
from polyclinic.errors import RecipeError, UsageError
from polyclinic.moe import blueprint
from polyclinic.recipe import Recipe, load_recipe, override, substitute, validate

WHOLE: dict[str, Any] = {
    "name": "whole",
    "seed": 1,
    "corpus": {
        "texts": [{"starter": True}],
        "exams": [{"starter": True}],
        "quality": {"per_language": {"th": {}}, "difficulty": "difficulty.parquet"},
        "mix": {"sources": {"th": {}}, "categories": {"th": {}}},
        "rewrite": {"endpoint": {"base_url": "http://host/v1", "model": "m"}},
        "translate": {"endpoint": {"base_url": "http://host/v1", "model": "m"}, "to": ["sw"]},
        "decontaminate": {"against": [{"starter": True}]},
    },
    "base": {"from_scratch": {"steps": 1}},
    "upcycle": {},
    "train": {"steps": 1, "lora": {}},
    "specialise": {"steps": 1},
    "ablate": {},
    "analyse": {},
    "evaluate": {},
}


def fields(model: type[BaseModel] = Recipe, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path and the annotation of every setting of a recipe, sections walked into."""
    for name, field in model.model_fields.items():
        inner = [t for t in leaves(field.annotation) if issubclass(t, BaseModel)]
        listed = {list: (0,), dict: ("th",)}.get(typing.get_origin(field.annotation), ())
        yield from fields(inner[0], (*path, name, *listed)) if inner else [((*path, name), field.annotation)]


def leaves(annotation: Any) -> list[type]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict, typing.Annotated):
        return [leaf for inner in typing.get_args(annotation) for leaf in leaves(inner)]
    return [annotation] if isinstance(annotation, type) else []


def dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def given_at(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Return the whole recipe with one value exchanged or added."""
    values = copy.deepcopy(WHOLE)
    inner: Any = values
    for part in path[:-1]:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
    inner[path[-1]] = value
    return values


ALL = [path for path, _ in fields()]
LISTS = [
    path for path, kind in fields() if {list, dict} & {typing.get_origin(k) for k in (kind, *typing.get_args(kind))}
]
NUMBERS = [path for path, kind in fields() if {int, float} & set(leaves(kind)) and path not in LISTS]
FLOATS = [path for path, kind in fields() if float in leaves(kind)]
TEXTS = [path for path, kind in fields() if leaves(kind) in ([str], [str, type(None)])]


def test_the_walk_over_settings_finds_those_of_every_section() -> None:
    wanted = {"seed", "corpus.texts.0.max_per_language", "base.from_scratch.num_heads", "train.learning_rate"}
    assert wanted < {dotted(p) for p in NUMBERS}
    assert {"corpus.root", "base.run", "upcycle.families"} < {dotted(p) for p in TEXTS}
    assert {"corpus.languages", "upcycle.layers"} < {dotted(p) for p in LISTS}


@pytest.mark.parametrize("path", ALL, ids=dotted)
def test_a_misspelt_key_is_named_with_the_nearest_known_one(path: tuple[str | int, ...]) -> None:
    wrong = (*path[:-1], f"{path[-1]}x")
    with pytest.raises(RecipeError) as caught:
        validate(given_at(wrong, 1), "here")
    assert str(caught.value) == f"here: unknown key '{dotted(wrong)}'; did you mean '{path[-1]}'?"


@pytest.mark.parametrize("path", NUMBERS, ids=dotted)
def test_no_number_is_made_of_text_or_truth(path: tuple[str | int, ...]) -> None:
    with pytest.raises(RecipeError, match=f"'{dotted(path)}': .*; remove the quotes"):
        validate(given_at(path, "1"), "here")
    for value in (True, "one", [1], {}):
        with pytest.raises(RecipeError, match=f"'{dotted(path)}': .*; correct the value"):
            validate(given_at(path, value), "here")


@pytest.mark.parametrize("path", FLOATS, ids=dotted)
def test_no_number_is_infinite_or_none(path: tuple[str | int, ...]) -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(RecipeError, match=dotted(path)):
            validate(given_at(path, value), "here")


@pytest.mark.parametrize("path", NUMBERS, ids=dotted)
def test_no_number_is_negative(path: tuple[str | int, ...]) -> None:
    with pytest.raises(RecipeError, match=f"'{dotted(path)}': .* greater than"):
        validate(given_at(path, -1), "here")


@pytest.mark.parametrize("path", TEXTS, ids=dotted)
def test_no_text_is_made_of_a_number_or_truth(path: tuple[str | int, ...]) -> None:
    for value in (False, 1.5) if path == ("train", "family") else (False, 1, 1.5):
        with pytest.raises(RecipeError, match=f"'{dotted(path)}'"):
            validate(given_at(path, value), "here")


@pytest.mark.parametrize("key", ["name", "corpus", "corpus.texts", "base"])
def test_a_missing_key_is_named(key: str) -> None:
    path = key.split(".")
    values: Any = copy.deepcopy(WHOLE)
    inner = values
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    with pytest.raises(RecipeError, match=f"here: '{key}' is missing"):
        validate(values, "here")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("corpus", "texts"), [{}], "give one of starter: true, a path and a hub id"),
        (("corpus", "texts"), [{"starter": True, "path": "a"}], "give one of starter: true, a path and a hub id"),
        (("corpus", "texts"), [], "at least 1 item"),
        (("base",), {}, "exactly one of from_scratch, checkpoint, run"),
        (("base",), {"checkpoint": "a", "run": "b"}, "exactly one of from_scratch, checkpoint, run"),
        (("name",), "../up", "match pattern"),
        (("seed",), 2**31, "less than"),
        (("corpus", "held_out"), 1.1, "less than or equal to 1"),
        (("train", "routing"), "hybird", "'topk', 'hybrid' or 'language'"),
        (("upcycle",), {"layers": [1], "last_layers": 1}, "last_layers or layers, not both"),
        (("upcycle",), {"layers": [1], "place": "random"}, "give layers or place random, not both"),
        (("upcycle",), {"last_layers": 1, "place": "all"}, "leave last_layers out"),
        (("baseline",), "dens", "'dense'"),
        (("upcycle",), {"noise": 0.1, "reinit": 0.5}, "noise or reinit, not both"),
        (("upcycle", "layers"), [], "one layer or more, each once"),
        (("upcycle", "layers"), [1, 0, 1], "one layer or more, each once"),
        (("upcycle", "layers"), 1, "valid list"),
        (("upcycle", "layers"), [-1], r"'upcycle\.layers\.0': .* greater than or equal to 0"),
        (("upcycle", "layers"), [0, True], r"'upcycle\.layers\.1': .* valid integer"),
        (("upcycle", "layers"), [1.0], r"'upcycle\.layers\.0': .* valid integer"),
        (("upcycle", "shared_expert"), True, "'none', 'zero' or 'copy'"),
        (("upcycle", "router_init"), "zeros", "'random', 'zero' or 'centroid'"),
        (("upcycle", "norm_topk_prob"), 1, "valid boolean"),
        (("upcycle", "reinit"), 1.5, "less than or equal to 1"),
        (("train",), {"steps": 1, "routing": "language", "z_loss": 0.1}, "nothing to balance"),
        (("base",), {"checkpoint": ""}, r"'base\.checkpoint': .* at least 1 character"),
        (("base",), {"run": ""}, r"'base\.run': .* at least 1 character"),
        (("upcycle", "families"), "", r"'upcycle\.families': .* at least 1 character"),
        (("base", "from_scratch", "num_heads"), 5, "num_heads must divide hidden_size"),
        (("base", "from_scratch", "num_kv_heads"), 4, "num_kv_heads must divide num_heads"),
        (("base", "from_scratch", "num_heads"), 64, "hidden_size / num_heads must be even"),
        (("base", "from_scratch", "hidden_size"), 12, "must be multiples of 8"),
        (("base", "from_scratch", "intermediate_size"), 500, "must be multiples of 8"),
        (("upcycle", "shared_expert"), "zero", "qwen3_moe, which has no shared expert"),
        (("upcycle", "shared_expert"), "copy", "qwen3_moe, which has no shared expert"),
    ],
)
def test_values_that_contradict_each_other_or_mean_nothing_are_refused(path: Any, value: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        validate(given_at(path, value), "here")


def test_a_base_of_ones_own_may_have_a_shared_expert_and_the_width_is_that_of_the_blueprints() -> None:
    values = given_at(("base",), {"checkpoint": "a"})
    assert validate(values | {"upcycle": {"shared_expert": "zero"}}, "here").upcycle.shared_expert == "zero"
    assert blueprint.ALIGNED == recipes.ALIGNED


@pytest.mark.parametrize("path", ALL, ids=dotted)
def test_a_recipe_cannot_be_changed_after_reading(path: tuple[str | int, ...]) -> None:
    inner: Any = validate(WHOLE, "here")
    for part in path[:-1]:
        inner = inner[part] if isinstance(inner, list | dict) else getattr(inner, str(part))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(inner, str(path[-1]), None)


def test_a_resolved_recipe_reads_back_as_itself() -> None:
    recipe = validate(WHOLE, "here")
    assert validate(recipe.model_dump(), "here") == recipe
    assert validate(json.loads(json.dumps(recipe.model_dump())), "here") == recipe


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        (("seed",), "9", 9),
        (("train", "learning_rate"), "1e-4", 1e-4),
        (("corpus", "languages"), "[no, fr]", ["no", "fr"]),
        (("corpus", "check_language"), "report", "report"),
        (("base", "from_scratch", "steps"), "3", 3),
        (("base",), "{checkpoint: 'a=b'}", {"checkpoint": "a=b"}),
    ],
)
def test_an_override_is_the_same_as_an_edit(tmp_path: Path, path: Any, text: str, value: Any) -> None:
    for name, values in (("plain", WHOLE), ("edited", given_at(path, value))):
        (tmp_path / name).write_text(json.dumps(values))
    overridden = load_recipe(tmp_path / "plain", [f"{dotted(path)}={text}"])
    assert overridden == load_recipe(tmp_path / "edited")
    assert overridden != load_recipe(tmp_path / "plain")


def test_an_override_may_open_a_section() -> None:
    values: dict[str, Any] = {}
    override(values, "upcycle.top_k=1")
    assert values == {"upcycle": {"top_k": 1}}


@pytest.mark.parametrize("assignment", ["seed", "=1", "train.=1", ".seed=1", "train..steps=1", ""])
def test_an_override_that_is_none_is_an_error_of_usage(assignment: str) -> None:
    with pytest.raises(UsageError, match=r"is not section\.key=value"):
        override({}, assignment)


def test_the_same_override_twice_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(WHOLE))
    with pytest.raises(UsageError, match="seed stands twice"):
        load_recipe(tmp_path / "r.yaml", ["seed=1", "train.steps=2", "seed=2"])


def test_an_override_through_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="goes through a value"):
        override({"seed": 1}, "seed.x=1")


@given(st.dictionaries(st.text("abc"), st.lists(st.text("ab $/.{}"))))
@settings(deadline=None, max_examples=50)
def test_text_without_a_variable_stays_as_it_is(value: dict[str, list[str]]) -> None:
    values = {key: [text for text in texts if "${" not in text] for key, texts in value.items()}
    assert substitute(values, {}, "here") == values


def test_variables_are_replaced_once_and_everywhere() -> None:
    environment = {"A": "one", "B": "${A}"}
    values = {"x": ["${A}/${B}", {"y": "${A}${A}"}], "n": 1, "${A}": None}
    assert substitute(values, environment, "here") == {"x": ["one/${A}", {"y": "oneone"}], "n": 1, "${A}": None}


@pytest.mark.parametrize("environment", [{}, {"A": ""}])
def test_an_unset_or_empty_variable_is_named_with_its_place(environment: dict[str, str]) -> None:
    with pytest.raises(RecipeError) as caught:
        substitute({"corpus": {"texts": [{"path": "x/${A}"}]}}, environment, "here")
    assert str(caught.value) == "here: corpus.texts[0].path uses ${A}, which is not set; export A=..."
