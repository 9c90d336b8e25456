"""Intervals, chance and constant-answer lines: what a score is worth."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054


class Interval(NamedTuple):
    """A 95 % interval of a share."""

    low: float
    high: float


def wilson(correct: int, total: int) -> Interval:
    """Return the Wilson score interval (Wilson 1927, JASA 22:209-212); total 0 gives (0, 1)."""
    if total == 0:
        return Interval(0.0, 1.0)
    share, z2 = correct / total, Z95**2
    centre = share + z2 / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def chance(num_options: Sequence[int]) -> float:
    """Return the expected accuracy of blind guessing over items with these numbers of options."""
    return sum(1 / n for n in num_options) / len(num_options)


def best_constant(gold: Sequence[int]) -> float:
    """Return the accuracy of always giving the most frequent position."""
    return Counter(gold).most_common(1)[0][1] / len(gold)
