"""Baselines by one key: a recipe and the name of a baseline give the recipe of that baseline.

Each answers one objection to a mixture of family experts: that more training (`dense`), more
parameters at work (`one`, `total`), no families (`two`) or the place of the experts (`first`,
`random`, `every`) would have done as well.
"""

from collections.abc import Callable
from typing import Any

from polyclinic.errors import RecipeError
from polyclinic.families import load_preset
from polyclinic.recipe import Recipe, validate

SAYS = {
    "dense": "the dense base, trained on the same packs for the same steps; no experts",
    "one": "one expert for each token",
    "two": "two experts, both at work for every token",
    "total": "all experts at work for every token",
    "first": "the experts in the first layers",
    "random": "the experts in layers drawn at random",
    "every": "experts in every layer",
}
TWO = 2
Values = dict[str, Any]


def applied(recipe: Recipe) -> Recipe:
    """Return the recipe that a baseline stands for; applied again, it stays the same.

    Raises RecipeError where recipe and baseline contradict each other.
    """
    if recipe.baseline == "none":
        return recipe
    _refuse(recipe)
    changes = _CHANGES[recipe.baseline](recipe)
    values = recipe.model_dump()
    for section, changed in changes.items():
        values[section] = {**values[section], **changed}
    return validate(values, f"baseline {recipe.baseline}")


def _dense(recipe: Recipe) -> dict[str, Values]:
    return {"train": {"load_balance": 0.0, "z_loss": 0.0, "bias_balance": 0.0}}


def _one(recipe: Recipe) -> dict[str, Values]:
    return {"upcycle": {"top_k": 1}}


def _two(recipe: Recipe) -> dict[str, Values]:
    return {"upcycle": {"families": "two", "num_experts": None, "top_k": TWO}}


def _total(recipe: Recipe) -> dict[str, Values]:
    return {"upcycle": {"top_k": load_preset(recipe.upcycle.families).num_experts}}


def _placed(place: str) -> Callable[[Recipe], dict[str, Values]]:
    def changes(recipe: Recipe) -> dict[str, Values]:
        section = recipe.upcycle
        count = section.last_layers if section.layers is None else len(section.layers)
        return {"upcycle": {"place": place, "layers": None, "last_layers": None if place == "all" else count}}

    return changes


_CHANGES = {
    "dense": _dense,
    "one": _one,
    "two": _two,
    "total": _total,
    "first": _placed("first"),
    "random": _placed("random"),
    "every": _placed("all"),
}


def _refuse(recipe: Recipe) -> None:
    """Raise RecipeError for what a baseline would leave out or turn into another comparison."""
    train, name = recipe.train, recipe.baseline
    if name == "dense" and recipe.specialise is not None:
        raise _fault("dense has no experts to specialise", "remove specialise and train as many tokens more")
    if name == "dense" and (train.trains != "all" or train.lora is not None):
        raise _fault("dense trains the whole model, train a part of the mixture", "remove trains, family and lora")
    if name in ("two", "total") and train.routing == "language":
        raise _fault(f"{name} has all its experts at work, routing language one", "route by hybrid or topk")
    if name == "two" and recipe.upcycle.top_k != TWO:
        what = f"two has as many active parameters as top_k 2, the recipe has top_k {recipe.upcycle.top_k}"
        raise _fault(what, "compare with a recipe of top_k 2")
    if name == "two" and train.family is not None:
        raise _fault("two has families of its own, train.family names one of the recipe's", "remove family")


def _fault(what: str, try_: str) -> RecipeError:
    return RecipeError("baseline", what, try_)
