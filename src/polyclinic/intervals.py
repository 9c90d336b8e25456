"""Intervals of shares and of means: Wilson's, and the percentile bootstrap over clusters of items.

A cluster is what is drawn together: the translations of one question, or one question. The bootstrap
is that of Efron and Tibshirani 1993, chapter 13, of a ratio of sums over clusters.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
RESAMPLES = 2000
AT_ONCE = 4_000_000  # draws held in memory

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Change(NamedTuple):
    """How much a mean changed, with a 95 % interval; `clusters` is what the interval rests on."""

    change: float
    low: float
    high: float
    clusters: int


def wilson(correct: int, total: int) -> Interval:
    """Return the Wilson score interval (Wilson 1927, JASA 22:209-212); total 0 gives (0, 1)."""
    if total == 0:
        return Interval(0.0, 1.0)
    share, z2 = correct / total, Z95**2
    centre = share + z2 / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def cluster_sums(clusters: Sequence[str], *columns: Sequence[float] | Floats) -> Floats:
    """Return the sums of columns over each cluster, clusters x columns, in the order of their names."""
    names, where = np.unique(np.asarray(clusters), return_inverse=True)
    sums = [np.bincount(where, np.asarray(column, dtype=np.float64), len(names)) for column in columns]
    return np.stack(sums, axis=1)


def resampled(sums_GK: Floats, resamples: int, seed: int) -> Floats:
    """Return the totals of `resamples` draws of as many clusters with replacement, resamples x columns."""
    draw, clusters = np.random.default_rng(seed), len(sums_GK)
    kinds_MK, counts_M = np.unique(sums_GK, axis=0, return_counts=True)
    if len(kinds_MK) * 16 < clusters:  # how often each kind is drawn is multinomial: the same, without the draws
        return draw.multinomial(clusters, counts_M / clusters, size=resamples) @ kinds_MK
    step = max(1, AT_ONCE // clusters)
    parts = []
    for begin in range(0, resamples, step):
        drawn = draw.integers(clusters, size=(min(step, resamples - begin), clusters))
        parts.append(np.stack([column[drawn].sum(axis=1) for column in sums_GK.T], axis=1))
    return np.concatenate(parts)


def middle(values: Floats) -> Interval:
    """Return the quantiles of resampled values that hold 95 % of them."""
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def bootstrap(
    values: Sequence[float] | Floats, clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the interval of a mean over items, clusters being drawn; degenerate where all values are equal."""
    totals = resampled(cluster_sums(clusters, values, np.ones(len(clusters))), resamples, seed)
    return middle(totals[:, 0] / totals[:, 1])


def paired_change(
    before: Sequence[float],
    after: Sequence[float],
    weights: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> Change:
    """Return the change of sum / weight from `before` to `after` of the same items, both being sums over an item."""
    gains = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    sums = cluster_sums(groups, gains, weights)
    totals = resampled(sums, resamples, seed)
    low, high = middle(totals[:, 0] / totals[:, 1])
    return Change(float(sums[:, 0].sum() / sums[:, 1].sum()), low, high, len(sums))
