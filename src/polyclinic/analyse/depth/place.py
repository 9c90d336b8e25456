"""From a curve of separation by layer to how many last layers to make sparse.

The rule: languages separate again towards the output after a trough, where they are most alike. From the
lowest layer of the curve on, the curve is cut in two where two constants fit it best (least
squares); the layers after the cut are the ones to hold experts. A rise smaller than SMALLEST is
called none, and nothing is recommended.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SMALLEST = 0.05  # of separation, which runs from 0 to 1

Floats = NDArray[np.float64]


class Cut(NamedTuple):
    """Where a curve rises: layers from `first` on are after it."""

    trough: int  # the lowest layer
    first: int  # the number of layers where there is no rise
    rise: float  # mean of the layers after the cut minus that of those from the trough to it
    explained: float  # share of the squares from the trough on that the two means explain


def rise_of(curve: Floats, first: int) -> Cut:
    """Describe a cut of a curve at a layer."""
    trough = int(curve.argmin())
    before, after = curve[trough:first], curve[max(first, trough) :]
    if not len(before) or not len(after):
        return Cut(trough, first, 0.0, 0.0)
    rest = ((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum()
    whole = ((curve[trough:] - curve[trough:].mean()) ** 2).sum()
    explained = 1 - rest / whole if whole else 0.0
    return Cut(trough, first, float(after.mean() - before.mean()), float(explained))


def best_cut(curve: Floats) -> Cut:
    """Return the cut that explains most; of equal ones the first."""
    cuts = [rise_of(curve, first) for first in range(int(curve.argmin()) + 1, len(curve))]
    if not cuts:
        return Cut(len(curve) - 1, len(curve), 0.0, 0.0)
    return max(cuts, key=lambda cut: cut.explained)


def last_layers(curve: Floats) -> int:
    """Return how many last layers to make sparse, 0 where there is no rise."""
    cut = best_cut(curve)
    return len(curve) - cut.first if cut.rise >= SMALLEST else 0
