"""What a training is asked for, held against the mixture it is asked of: torch-free, so it fails early."""

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec

from polyclinic.errors import MissingDependencyError, RecipeError
from polyclinic.families import expert_called
from polyclinic.recipe import MoeTrainingSection


def chosen_expert(
    section: MoeTrainingSection, families: Mapping[str, Sequence[str]], expert_of: Mapping[str, int]
) -> int | None:
    """Return the number of the one expert that trains; None where a training names no family.

    `families` are the languages by name of family, in the order of experts; `expert_of` places others.
    Raises RecipeError for a family that is none of these.
    """
    if section.family is None:
        return None
    listed = {code: expert for expert, codes in enumerate(families.values()) for code in codes}
    return expert_called(section.family, list(families), {**expert_of, **listed}, "train.family")


def check_has_text(section: MoeTrainingSection, expert: int | None, served: Collection[int]) -> None:
    """Raise RecipeError where only texts of its own reach an expert, and there are none.

    `served` are the experts whose families have text.
    """
    if expert is not None and section.routing == "language" and expert not in served:
        what = f"no text is of the languages of family '{section.family}', and routing language sends it no other"
        raise RecipeError("train.family", what, "choose a family with text, or route by hybrid")


def check_routers_learn(section: MoeTrainingSection, top_k: int, normalise: bool) -> None:
    """Raise RecipeError where the routers alone train and nothing reaches them.

    A sole pick has weight p / p = 1 whatever the router says: its gradient is zero.
    """
    alone = section.trains == "router" or (section.lora is not None and section.lora.targets == ["router"])
    if alone and top_k == 1 and normalise and not section.load_balance and not section.z_loss:
        what = "router beside top_k 1 and norm_topk_prob: the weight of a sole pick is always 1, so nothing would train"
        raise RecipeError("train.trains", what, "give norm_topk_prob false, a larger top_k, or load_balance")


def check_installed(section: MoeTrainingSection) -> None:
    """Raise MissingDependencyError where a training needs a package that is not there."""
    if section.lora is not None and find_spec("peft") is None:
        what = "adapters need the package peft, which is not installed"
        raise MissingDependencyError("train.lora", what, "pip install 'polyclinic[lora]'")
