"""Which texts say nearly the same, from their signatures: banding, verification, union-find.

A signature holds the low byte of each of 22 x 5 MinHash values: 110 bytes. Rows that agree in one band
of five are compared as a whole: the share of equal bytes estimates the Jaccard index of two texts
(b-bit minwise hashing, https://arxiv.org/abs/0910.3349). Everything is an array over the documents; rows
are given in the order of their names, so nothing depends on the order of the files.
"""

import numpy as np
import numpy.typing as npt

from polyclinic.corpus.units import Ints, UInts

BANDS, ROWS = 22, 5
WIDTH = BANDS * ROWS
BY_CHANCE = 1 / 256  # equal low bytes of values that differ
ROUNDS = 64  # leaders tried in a band, where many texts share it and are unlike
AT_ONCE = 1 << 16  # pairs compared together

Signatures = npt.NDArray[np.uint8]


def similarity(signatures: Signatures, one: Ints, other: Ints) -> npt.NDArray[np.float64]:
    """Estimate the Jaccard index of pairs of rows."""
    out = np.empty(one.size)
    for at in range(0, one.size, AT_ONCE):
        part = slice(at, at + AT_ONCE)
        out[part] = (signatures[one[part]] == signatures[other[part]]).mean(axis=1)
    return (out - BY_CHANCE) / (1 - BY_CHANCE)


def nearest(signatures: Signatures, kinds: Ints, least: float) -> Ints:
    """Return for each row the first row of its cluster.

    Rows are joined if they share a band and a kind (the language) and are at least `least` similar.
    """
    found = [_edges(signatures, _band(signatures, band), kinds, least) for band in range(BANDS)]
    edges = np.unique(np.concatenate(found), axis=0)
    return components(len(signatures), edges[:, 0], edges[:, 1])


def _band(signatures: Signatures, band: int) -> UInts:
    """Return one band of every row as a number."""
    piece = np.zeros((len(signatures), 8), dtype=np.uint8)
    piece[:, :ROWS] = signatures[:, band * ROWS : (band + 1) * ROWS]
    return piece.view(np.uint64)[:, 0]


def _edges(signatures: Signatures, keys: UInts, kinds: Ints, least: float) -> npt.NDArray[np.int64]:
    """Return pairs (leader, member) of one band, each verified.

    Of the rows that share a band and a kind the first one leads; those unlike it are left to the next.
    """
    members = np.lexsort((keys, kinds))
    run = _runs(keys[members], kinds[members])
    edges = [np.empty((0, 2), dtype=np.int64)]
    for _ in range(ROUNDS):
        sizes = np.unique_counts(run).counts
        crowd = np.repeat(sizes > 1, sizes)
        members, run, sizes = members[crowd], run[crowd], sizes[sizes > 1]
        if not members.size:
            break
        leaders = np.repeat(members[np.cumsum(sizes) - sizes], sizes)
        alike = similarity(signatures, leaders, members) >= least
        others = alike & (leaders != members)
        edges.append(np.stack([leaders[others], members[others]], axis=1))
        rest = ~alike & (leaders != members)
        members, run = members[rest], run[rest]
    return np.concatenate(edges)


def _runs(keys: UInts, kinds: Ints) -> Ints:
    """Return the number of the run of equal neighbours that each row is in."""
    steps = np.zeros(keys.size, dtype=np.int64)
    steps[1:] = (keys[1:] != keys[:-1]) | (kinds[1:] != kinds[:-1])
    return np.cumsum(steps)


def components(count: int, one: Ints, other: Ints) -> Ints:
    """Return for each of `count` nodes the smallest node that edges connect it with."""
    label = np.arange(count)
    while True:
        left, right = label[one], label[other]
        if (left == right).all():
            return label
        low = np.minimum(left, right)
        np.minimum.at(label, left, low)
        np.minimum.at(label, right, low)
        while not np.array_equal(label, higher := label[label]):
            label = higher
