"""What an upcycle will do, decided from recipe, preset and sizes alone: torch-free, so it fails early."""

import random
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


def sparse_layers(section: UpcycleSection, num_layers: int, seed: int = 0) -> tuple[int, ...]:
    """Return the indices of the sparse layers in order; the seed decides those at random places.

    Raises RecipeError where the model has them not.
    """
    if section.layers is not None:
        outside = [i for i in section.layers if i >= num_layers]
        if outside:
            what = f"layer {outside[0]} of {num_layers} layers, counted from 0"
            raise RecipeError("upcycle.layers", what, f"give layers 0 to {num_layers - 1}")
        return tuple(sorted(section.layers))
    every = range(num_layers)
    count = num_layers if section.place == "all" else section.last_layers or LAST_LAYERS
    if count > num_layers:
        raise RecipeError("upcycle.last_layers", f"{count} of {num_layers} layers", "give fewer")
    if section.place == "random":
        drawn = random.Random(f"{seed}:layers").sample(every, count)  # noqa: S311 - a draw to be repeated
        return tuple(sorted(drawn))
    return tuple(every[:count] if section.place == "first" else every[num_layers - count :])


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


def proof_line(facts: Mapping[str, Any]) -> str:
    """Say in one line what the proof of a build found."""
    apart = f"experts moved apart, from a plain loop by {facts['mixture_difference']:.1e}"
    if not facts["equal_by_design"]:
        return f"proof: differs from the dense parent by choice; {apart}"
    return (
        f"proof: logits differ from the dense parent by at most {facts['difference']:.1e} (largest |logit| "
        f"{facts['largest_logit']:.2f}); {apart}"
    )
