"""What an upcycle will do, decided from recipe and preset alone: torch-free, so it fails early."""

from polyclinic.errors import RecipeError
from polyclinic.families import Preset, load_preset
from polyclinic.recipe import UpcycleSection


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


def sparse_layers(num_layers: int, last_layers: int) -> tuple[int, ...]:
    """Return the indices of the last layers; raises RecipeError if there are too few."""
    if last_layers > num_layers:
        raise RecipeError("upcycle.last_layers", f"{last_layers} of {num_layers} layers", "give fewer")
    return tuple(range(num_layers - last_layers, num_layers))
