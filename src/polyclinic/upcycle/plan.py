"""What an upcycle will do, decided from recipe, preset and sizes alone: torch-free, so it fails early."""

from collections.abc import Mapping
from typing import Any

from polyclinic.errors import RecipeError
from polyclinic.families import Preset, load_preset
from polyclinic.recipe import UpcycleSection

LAST_LAYERS = 2  # of the paper's released models


def experts_of(section: UpcycleSection) -> Preset:
    """Return the preset of a recipe; raises RecipeError where numbers contradict each other."""
    preset = load_preset(section.families)
    if section.num_experts not in (None, preset.num_experts):
        what = f"num_experts {section.num_experts}, but preset '{preset.name}' has {preset.num_experts}"
        raise RecipeError("upcycle", what, "leave num_experts out or choose another preset")
    if section.top_k > preset.num_experts:
        what = f"top_k {section.top_k} of {preset.num_experts} experts"
        raise RecipeError("upcycle", what, f"give top_k 1 to {preset.num_experts}")
    return preset


def sparse_layers(section: UpcycleSection, num_layers: int) -> tuple[int, ...]:
    """Return the indices of the sparse layers in order; raises RecipeError where the model has them not."""
    if section.layers is not None:
        outside = [i for i in section.layers if i >= num_layers]
        if outside:
            what = f"layer {outside[0]} of {num_layers} layers, counted from 0"
            raise RecipeError("upcycle.layers", what, f"give layers 0 to {num_layers - 1}")
        return tuple(sorted(section.layers))
    last = section.last_layers or LAST_LAYERS
    if last > num_layers:
        raise RecipeError("upcycle.last_layers", f"{last} of {num_layers} layers", "give fewer")
    return tuple(range(num_layers - last, num_layers))


def check_routing(section: UpcycleSection, routing: str) -> None:
    """Raise RecipeError for a router that plain top-k could never learn from.

    With rows of zeros every token goes to the same experts; while these are alike, no gradient
    reaches the router, and the others never see a token.
    """
    if section.router_init == "zero" and routing == "topk" and not section.noise and not section.reinit:
        what = "a router of zeros sends every token to the same experts for ever under plain top-k"
        raise RecipeError("upcycle.router_init", what, "add noise or reinit, or route by hybrid")


def start(facts: Mapping[str, Any]) -> str:
    """Say from the facts of a build or forecast whether the mixture begins as its parent, or why not."""
    if facts["equal_by_design"]:
        return "equal to the parent"
    return f"differs from the parent by choice: {', '.join(facts['differs_by'])}"
