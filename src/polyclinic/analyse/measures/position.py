"""Whether routing changes along a text: first picks by decile of the position."""

from typing import Any

import numpy as np

from polyclinic.analyse.measures.shares import divided
from polyclinic.analyse.tally import FloatArray, Tally


def distances(counts_PE: FloatArray) -> FloatArray:
    """Return each row's distance to the mean row: the sum of (share - mean)^2 / mean over experts.

    Weighted by tokens, the rows' mean is Pearson's chi-square of the table over its tokens.
    """
    shares = divided(counts_PE, counts_PE.sum(1, keepdims=True))
    mean = divided(counts_PE.sum(0), counts_PE.sum())
    distance = divided((shares - mean) ** 2, np.broadcast_to(mean, shares.shape)).sum(1)
    return np.where(counts_PE.sum(1) > 0, distance, 0.0)


def by_chance(counts_PE: FloatArray) -> FloatArray:
    """Return the mean of `distances` if tokens changed places at random, margins fixed.

    Exact for tokens that are independent; tokens of a document are not, so true chance is higher.
    """
    tokens, rows = counts_PE.sum(), counts_PE.sum(1)
    used = int((counts_PE.sum(0) > 0).sum())
    return np.where(rows > 0, divided((tokens - rows) * (used - 1), rows * max(1.0, tokens - 1)), 0.0)


def position(tally: Tally) -> dict[str, Any]:
    """Return `layers`, each with `shares` [decile, expert], `distance`, `by_chance` and the `n` of a decile."""
    layers = []
    for layer, counts in zip(tally.layers, tally.position_LPE.astype(np.float64), strict=True):
        rows = counts.sum(1)
        layers.append(
            {
                "layer": layer,
                "shares": divided(counts, rows[:, None]).tolist(),
                "distance": distances(counts).tolist(),
                "by_chance": by_chance(counts).tolist(),
                "n": rows.astype(int).tolist(),
            }
        )
    return {"layers": layers, "n": tally.num_tokens}
