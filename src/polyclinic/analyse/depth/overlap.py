"""How much languages share the FFN units that matter most to them.

The set of a language is the tenth of a layer's units with the highest mean. Sets from finite text
differ even within one language, so the text is cut into two halves of whole documents: overlap
(intersection / union) of two halves of one language is what there is to reach, and separation is
the share of it that halves of two languages lack. It is 0, but for noise, where language makes no
difference, and 1 where no unit is shared.

Axes: B buckets, G languages, L layers, U units; the first G rows are of one half, the next of the other.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
TOP = 0.1


def top_sets(means: Floats, top: float = TOP) -> NDArray[np.bool_]:
    """Mark the units of the highest means, a share `top` of the last axis."""
    num = max(1, round(top * means.shape[-1]))
    order = np.argpartition(means, -num, axis=-1)[..., -num:]
    out = np.zeros(means.shape, dtype=np.bool_)
    np.put_along_axis(out, order, values=True, axis=-1)
    return out


def jaccard(sets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return intersection / union of each two of the sets in the second to last axis."""
    members = sets.astype(np.float32)
    both = (members @ np.swapaxes(members, -1, -2)).astype(np.float64)
    sizes = np.diagonal(both, axis1=-2, axis2=-1)
    return np.asarray(both / (sizes[..., :, None] + sizes[..., None, :] - both))


def halves(sums_BGLU: Floats, tokens_BG: NDArray[np.int64], weight_B: Floats) -> NDArray[np.float64]:
    """Return the means of both halves of each language, (L, 2 G, U); buckets of even numbers are one half."""
    parts = []
    for half in (0, 1):
        weight = np.where(np.arange(len(weight_B)) % 2 == half, weight_B, 0).astype(sums_BGLU.dtype)
        tokens_G = weight @ tokens_BG
        if not tokens_G.all():
            raise ValueError("a half without text")
        parts.append(np.tensordot(weight, sums_BGLU, 1) / tokens_G[:, None, None])
    return np.moveaxis(np.concatenate(parts), 0, 1)


def overlaps(means: Floats) -> NDArray[np.float64]:
    """Return the overlap of languages, (L, G, G), between a half of one and the other half of the other."""
    num = means.shape[1] // 2
    across = jaccard(top_sets(means))[:, :num, num:]
    return (across + np.swapaxes(across, 1, 2)) / 2


def separation(overlap_LGG: Floats) -> NDArray[np.float64]:
    """Return per layer the share of the overlap within languages that is missing between them, from -1 to 1.

    Divided by the larger of the two, so that noise is as far below 0 as above; 0 where nothing overlaps.
    """
    within, between = within_between(overlap_LGG)
    larger = np.maximum(within, between)
    out: NDArray[np.float64] = np.divide(within - between, larger, out=np.zeros_like(larger), where=larger > 0)
    return out


def within_between(overlap_LGG: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean overlap per layer within a language and between two."""
    num = overlap_LGG.shape[1]
    within = np.trace(overlap_LGG, axis1=1, axis2=2) / num
    return within, (overlap_LGG.sum((1, 2)) - within * num) / (num * (num - 1))


def specificity(means_GLU: Floats) -> NDArray[np.float64]:
    """Return per unit how much of it belongs to few languages, (L, U): 1 - entropy over languages / log G.

    0 where all languages have the same share, 1 where one has all; 0 for a unit that none uses.
    """
    total = means_GLU.sum(0)
    shares = means_GLU / np.where(total > 0, total, 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    return np.where(total > 0, 1 + (shares * logs).sum(0) / np.log(len(means_GLU)), 0.0)
