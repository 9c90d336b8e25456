"""What all sections ask of routing.json: languages in their order, names of experts and layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyclinic.analyse.report.plates import Cell, Code
from polyclinic.languages import all_languages

Facts = Mapping[str, Any]
TOKENS = "tokens"
LONGEST = 22  # letters of a family's name in a picture


def ordered(facts: Facts, codes: Sequence[str]) -> list[str]:
    """Order languages by their family's expert, then by lineage, so that relatives stand together."""
    return sorted(codes, key=lambda code: (facts["expert_of"].get(code, len(facts["families"])), _lineage(code), code))


def _lineage(code: str) -> tuple[str, ...]:
    return all_languages()[code].lineage if code in all_languages() else ()


def label(code: str) -> str:
    """Return a language as a label of a picture."""
    return f"{all_languages()[code].name} {code}" if code in all_languages() else code


def experts(facts: Facts) -> list[str]:
    """Return a label for each expert: its number, and the family it is of."""
    names = [family["name"] for family in facts["families"]]
    return [f"{i} {_short(names[i])}" if i < len(names) else str(i) for i in range(facts["num_experts"])]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "\u2026"


def layers(facts: Facts) -> list[str]:
    """Return a label for each layer that holds experts."""
    return [f"layer {layer}" for layer in facts["layers_of"]]


def pair(interval: Sequence[float] | None) -> tuple[Cell, Cell]:
    """Return an interval as two cells."""
    return (interval[0], interval[1]) if interval else (None, None)


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Say from where to where values reach."""
    there = [value for value in values if value is not None]
    if not there:
        return "none"
    low, high = f"{min(there):.{digits}f}", f"{max(there):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def code_rows(codes: Sequence[str], values: Mapping[str, Sequence[Cell]]) -> list[list[Cell]]:
    """Return a row for each language: its code, then its values."""
    return [[Code(code), *values[code]] for code in codes]
