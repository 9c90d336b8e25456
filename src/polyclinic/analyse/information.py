"""How much a token's expert says about its language, against what chance would say.

I(expert; language) in nats from counts. Counts make any plug-in estimate too high, so whole
documents are shuffled over languages (never tokens, which are not independent) to give a null; the
corrected value is the estimate minus the null's mean, and the share of shuffles that reach the
estimate is the p-value (docs/analyse.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Information(NamedTuple):
    """Mutual information of one layer, in nats."""

    layer: int
    estimate: float
    null: float  # mean over shuffles
    corrected: float
    p_value: float
    expert_entropy: float  # the most that could be known


def entropy(counts: NDArray[np.float64]) -> float:
    """Return the entropy of a count table in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def mutual_information(table: NDArray[np.float64]) -> float:
    """Return I(row; column) of a table of counts, in nats: H(row) + H(column) - H(row, column)."""
    return entropy(table.sum(1)) + entropy(table.sum(0)) - entropy(table.ravel())


def by_language(counts_DE: NDArray[np.int64], index: NDArray[np.int64], num: int) -> NDArray[np.float64]:
    """Add document counts up to a table [language, expert]."""
    table = np.zeros((num, counts_DE.shape[1]))
    np.add.at(table, index, counts_DE)
    return table


def layer_information(
    layer: int, counts_DE: NDArray[np.int64], languages: Sequence[str], shuffles: int, seed: int
) -> Information:
    """Estimate I(expert; language) of one layer with its shuffled null."""
    codes = sorted(set(languages))
    index = np.array([codes.index(code) for code in languages])
    observed = by_language(counts_DE, index, len(codes))
    estimate = mutual_information(observed)
    generator = np.random.default_rng(seed)
    null = np.array(
        [mutual_information(by_language(counts_DE, generator.permutation(index), len(codes))) for _ in range(shuffles)]
    )
    p_value = (1 + int((null >= estimate).sum())) / (1 + shuffles)
    mean = float(null.mean())
    return Information(layer, estimate, mean, estimate - mean, p_value, entropy(observed.sum(0)))
