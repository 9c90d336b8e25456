"""Whether a difference is more than luck: exact tests, clusters of items, corrections for many rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from polyclinic.intervals import Floats, cluster_sums

LEVEL = 0.05  # error that is allowed over all rows of a table


class Tails(NamedTuple):
    """Probabilities, under the null, of a result as high and of one as low as this."""

    above: float
    below: float

    @property
    def doubled(self) -> float:
        """Return the p value for both directions."""
        return min(1.0, 2 * min(self))


def guessed(odds: Sequence[float]) -> Floats:
    """Return the probability of 0, 1, ... right guesses, items having these odds (Poisson binomial, exact)."""
    pmf = np.ones(1)
    for p, n in sorted(Counter(odds).items()):
        pmf = np.convolve(pmf, stats.binom.pmf(np.arange(n + 1), n, p))
    return pmf


def against_odds(right: Sequence[bool], odds: Sequence[float], clusters: Sequence[str]) -> Tails:
    """Return how likely blind guessing gives as many right answers, or as few.

    Exact for items that are guessed apart. Where a cluster holds several items, guesses may repeat
    (one who always says C guesses all translations of a question at once), so that each tail is the
    larger of the exact one and that of `clustered`.
    """
    correct, pmf = sum(right), guessed(odds)
    exact = Tails(min(1.0, float(pmf[correct:].sum())), min(1.0, float(pmf[: correct + 1].sum())))
    return _larger(exact, np.asarray(right, dtype=np.float64) - np.asarray(odds), clusters)


def clustered(values: Sequence[float] | Floats, clusters: Sequence[str]) -> Tails:
    """Return tails of the sum of values that should be 0 on average, clusters being independent.

    The sum over the root of the clusters' squared sums is normal for many clusters.
    """
    sums = cluster_sums(clusters, values)[:, 0]
    spread = float(np.sqrt((sums**2).sum()))
    z = float(sums.sum()) / spread if spread else 0.0
    return Tails(float(stats.norm.sf(z)), float(stats.norm.cdf(z)))


def signs(differences: Sequence[int], clusters: Sequence[str]) -> Tails:
    """Return tails of the sign test on differences of -1, 0, 1; clusters as in `against_odds`."""
    wins, losses = (sum(d == sign for d in differences) for sign in (1, -1))
    exact = Tails(*(float(stats.binom.sf(k - 1, wins + losses, 0.5)) for k in (wins, losses)))
    return _larger(exact, differences, clusters)


def _larger(exact: Tails, values: Sequence[float] | Floats, clusters: Sequence[str]) -> Tails:
    if len(set(clusters)) == len(clusters):
        return exact
    return Tails(*map(max, exact, clustered(values, clusters)))


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p value of items that only one of two models has right (McNemar 1947)."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected so that any false finding among them is as rare as one alone (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in out]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for the share of false findings (Benjamini and Hochberg 1995)."""
    return [float(value) for value in stats.false_discovery_control(p_values)] if len(p_values) else []


CORRECTIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {"holm": holm, "bh": benjamini_hochberg}
