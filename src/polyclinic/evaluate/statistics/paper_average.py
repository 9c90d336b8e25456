"""The averages of arXiv 2410.10626, as its scripts compute them: no intervals, and unlike weights.

English and Chinese are the mean of their sets, other languages pool theirs by item; the two figures of
the paper are plain means over its 12 major and 38 minor languages, of those that were asked.
"""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from polyclinic.evaluate.items import Item
from polyclinic.families import fifty, majors
from polyclinic.strict_yaml import parse

FILE = "data/paper_average.yaml"


@cache
def _rule() -> dict[str, Any]:
    text = resources.files("polyclinic").joinpath(FILE).read_text("utf-8")
    return dict(parse(text, FILE))


def paper_average(items: Sequence[Item]) -> dict[str, Any]:
    """Return each language's figure, the mean of the major and of the minor languages, and what is not reproduced."""
    by_set: dict[str, dict[str, list[bool]]] = {}
    for item in items:
        by_set.setdefault(item.language, {}).setdefault(item.exam, []).append(item.right)
    languages = {code: _of_language(code, by_set[code]) for code in sorted(by_set)}
    tiers = {"majors": set(majors()), "minors": set(fifty()) - set(majors())}
    means = {name: _mean([languages[code] for code in languages if code in tier]) for name, tier in tiers.items()}
    return {"languages": languages, **means, "unsaid": _rule()["unsaid"]}


def _of_language(code: str, sets: dict[str, list[bool]]) -> float:
    if code in _rule()["mean_of_sets"]:
        return sum(sum(right) / len(right) for right in sets.values()) / len(sets)
    pooled = [one for right in sets.values() for one in right]
    return sum(pooled) / len(pooled)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
