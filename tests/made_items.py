"""Items for tests of the statistics, without a model."""

from typing import Any

import numpy as np

from polyclinic.evaluate.items import Item


def item(number: int, right: bool = True, **other: Any) -> Item:
    """Return an item of exam `e` in English with four options, its right one `number % options`."""
    options = other.get("options", 4)
    gold = other.pop("gold", (number % options,))
    picked = other.pop("picked", gold if right else ((gold[0] + 1) % options,))
    exam, language = other.pop("exam", "e"), other.pop("language", "en")
    values = {"options": 4, "group": f"{exam} {number}", "task": f"{exam}_{language}", **other}
    return Item(exam=exam, language=language, id=str(number), gold=gold, picked=picked, **values)


def guesses(draw: np.random.Generator, n: int, options: int = 4, **other: Any) -> list[Item]:
    """Return items of which a blind guesser picked one option each."""
    out = []
    for number, (gold, picked) in enumerate(draw.integers(options, size=(n, 2)).tolist()):
        out.append(item(number, options=options, gold=(gold,), picked=(picked,), **other))
    return out


def answered(draw: np.random.Generator, n: int, p: float, **other: Any) -> list[Item]:
    """Return items answered right with probability p."""
    return [item(number, bool(right), **other) for number, right in enumerate(draw.random(n) < p)]
