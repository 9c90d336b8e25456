"""How alike the states of translations are, layer by layer.

States are centred per language first: what all texts of a language have in common, which is far
larger than what a text says, does not count. Margin: cosine of a text with its translation minus
the mean cosine with the other texts of that language, 1 for states that carry the text alone, 0
for states that tell nothing of it. Retrieval: share of texts whose nearest is their translation.

Axes: G languages, N texts, L layers, H hidden.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 8  # texts that two languages share
Floats = NDArray[np.floating]


class Alignment(NamedTuple):
    """Margin and retrieval of each text per layer, mean over pairs of languages and both directions; NaN: no pair."""

    margin_NL: NDArray[np.float64]
    found_NL: NDArray[np.float64]
    pairs: int


def align(states_GNLH: Floats, has_GN: NDArray[np.bool_]) -> Alignment:
    """Compare each two languages that share enough texts."""
    texts, layers = states_GNLH.shape[1:3]
    sums, counts, pairs = np.zeros((2, texts, layers)), np.zeros((texts, 1)), 0
    for one, two in combinations(range(len(states_GNLH)), 2):
        both = np.flatnonzero(has_GN[one] & has_GN[two])
        if len(both) < FEWEST:
            continue
        pairs, counts[both] = pairs + 1, counts[both] + 1
        for layer in range(layers):
            cosines = _unit(states_GNLH[one, both, layer]) @ _unit(states_GNLH[two, both, layer]).T
            sums[0, both, layer] += (_margins(cosines) + _margins(cosines.T)) / 2
            sums[1, both, layer] += (_first(cosines) + _first(cosines.T)) / 2
    with np.errstate(invalid="ignore"):
        margin, found = sums / counts
    return Alignment(margin, found, pairs)


def _unit(states_NH: Floats) -> NDArray[np.float64]:
    centred = states_NH.astype(np.float64) - states_NH.mean(0, dtype=np.float64)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def _margins(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    own = np.diagonal(cosines)
    return np.asarray(own - (cosines.sum(1) - own) / (len(cosines) - 1))


def _first(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say of each row whether no other column reaches its own; equal states retrieve nothing."""
    others = cosines - np.where(np.eye(len(cosines), dtype=np.bool_), np.inf, 0)
    return np.asarray(np.diagonal(cosines) > others.max(1), dtype=np.float64)
