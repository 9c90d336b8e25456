"""Intervals, chance and constant-answer lines: what a score is worth."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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


class Change(NamedTuple):
    """How much a mean changed, with a 95 % interval; `clusters` is what the interval rests on."""

    change: float
    low: float
    high: float
    clusters: int


def paired_change(
    before: Sequence[float],
    after: Sequence[float],
    weights: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> Change:
    """Return the change of sum / weight from `before` to `after` of the same items, both being sums over an item.

    The interval is the percentile bootstrap over groups of items (Efron and Tibshirani 1993, chapter 13).
    """
    names, where = np.unique(np.asarray(groups), return_inverse=True)
    gains, sizes = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(gains, where, np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64))
    np.add.at(sizes, where, np.asarray(weights, dtype=np.float64))
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    low, high = np.quantile(gains[draws].sum(axis=1) / sizes[draws].sum(axis=1), (0.025, 0.975))
    return Change(float(gains.sum() / sizes.sum()), float(low), float(high), len(names))
