"""What a command line asks for, read over a recipe or alone."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from polyclinic.baselines import applied
from polyclinic.errors import UsageError
from polyclinic.languages import language
from polyclinic.recipe import Recipe, UpcycleSection, load_recipe

# Options that take the place of another key of a recipe, instead of standing beside it.
_INSTEAD = {
    "layers": ("last_layers", "place"), "last_layers": ("layers",), "place": ("layers",), "noise": ("reinit",),
    "reinit": ("noise",), "families": ("num_experts",),
}  # fmt: skip


def upcycle_choices(arguments: Namespace) -> tuple[str, Any, str, int, list[str]]:
    """Return base, section, routing, seed and languages of a command line, or of a recipe with options over it."""
    values: dict[str, Any] = {}
    base, routing, seed, named = str(arguments.dense), "hybrid", 0, []
    if base.endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(base))
        if recipe.baseline == "dense":
            raise UsageError(arguments.dense, "its baseline is dense, which builds no mixture", "remove baseline")
        values, routing, seed = recipe.upcycle.model_dump(), recipe.train.routing, recipe.seed
        base, named = recipe.base.checkpoint or "", [language(c).code for c in recipe.corpus.languages or ()]
        if not base:
            raise UsageError(arguments.dense, "its base is no checkpoint", "give polyclinic run that recipe")
    names = ("families", "place", "last_layers", "layers", "top_k", "shared_expert", "router_init", "noise", "reinit")
    found = {name: getattr(arguments, name) for name in names} | {"num_experts": arguments.experts}
    given = {name: value for name, value in found.items() if value is not None}
    for name in given:
        for other in _INSTEAD.get(name, ()):
            values.pop(other, None)
    if given.get("place") == "all":
        values.pop("last_layers", None)
    if "last_layers" in given and values.get("place") == "all":
        values.pop("place")
    values |= given
    if arguments.unnormalised:
        values["norm_topk_prob"] = False
    try:
        section = UpcycleSection(**values)
    except ValidationError as err:
        what = err.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError("polyclinic upcycle build", what, "see polyclinic upcycle build --help") from err
    return base, section, arguments.routing or routing, seed if arguments.seed is None else arguments.seed, named


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; a baseline that it names is applied."""
    return applied(load_recipe(path, overrides))
