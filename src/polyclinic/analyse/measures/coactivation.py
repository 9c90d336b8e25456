"""Which experts are picked together: P(i, j) / P(i), against picks that do not mind each other."""

from typing import Any

import numpy as np

from polyclinic.analyse.measures.shares import divided
from polyclinic.analyse.tally import FloatArray, Tally

MOST_PAIRS = 20


def coactivation(co_EE: FloatArray) -> FloatArray:
    """Return P(j picked | i picked) [i, j], 0 on the diagonal (arXiv 2409.02060, section 5.2)."""
    out = divided(co_EE, np.diagonal(co_EE)[:, None])
    np.fill_diagonal(out, 0.0)
    return out


def independent(co_EE: FloatArray, top_k: int) -> FloatArray:
    """Return P(j | i) if the other K - 1 picks of a token with i fell on experts in proportion to their load."""
    load = np.diagonal(co_EE)
    others = load.sum() - load
    out = (top_k - 1) * divided(np.broadcast_to(load, co_EE.shape), np.broadcast_to(others[:, None], co_EE.shape))
    out = np.where(load[:, None] > 0, out, 0.0)
    np.fill_diagonal(out, 0.0)
    return out


def together(tally: Tally) -> dict[str, Any]:
    """Return `layers`: the `pairs` furthest above independence and `distance`, how far all are from it.

    A pair is (`one`, `other`, `share` of the tokens of `one`, `independent`, `lift`, `n` tokens with both).
    `distance` is the mean over picks of half the sum of |share - independent| over the K - 1 others,
    0 to 1; None where K is 1.
    """
    layers = []
    for layer, counts in zip(tally.layers, tally.co_LEE.astype(np.float64), strict=True):
        share, expected = coactivation(counts), independent(counts, tally.top_k)
        load = divided(np.diagonal(counts), np.diagonal(counts).sum())
        gap = (load * np.abs(share - expected).sum(1)).sum() / 2
        layers.append(
            {
                "layer": layer,
                "pairs": _pairs(counts, share, expected),
                "distance": float(gap / (tally.top_k - 1)) if tally.top_k > 1 else None,
            }
        )
    return {"layers": layers, "n": tally.num_tokens}


def _pairs(counts: FloatArray, share: FloatArray, expected: FloatArray) -> list[dict[str, Any]]:
    """Rank pairs by tokens above independence, so that rare pairs do not lead by noise."""
    above = (share - expected) * np.diagonal(counts)[:, None]
    ranked = np.argsort(-above, axis=None, kind="stable")[:MOST_PAIRS]
    return [
        {
            "one": int(i),
            "other": int(j),
            "share": float(share[i, j]),
            "independent": float(expected[i, j]),
            "lift": float(share[i, j] / expected[i, j]),
            "n": int(counts[i, j]),
        }
        for i, j in zip(*np.unravel_index(ranked, above.shape), strict=True)
        if above[i, j] > 0
    ]
