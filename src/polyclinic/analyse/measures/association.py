"""How much labels say about the expert within groups: estimate, shuffled null, interval.

One engine for all measures of information. Tokens come in rows, each wholly of one bucket and one
cell (a label within a group: a language within a token id, say). With H the entropy in nats,

    I(E; cell | group) = H(E | group) - H(E | cell)
    score = (estimate - mean null) / (H(E | group) - mean null)

The null hands the cells of the rows out anew within strata; strata lie within groups, so a group
keeps its tokens and only what the label adds is broken. Counting alone makes an estimate from few
tokens too high, and the null is too high by as much (docs/analyse.md). The interval is a percentile
bootstrap over numbers of buckets (Efron and Tibshirani 1993, chapter 13) with the bias that drawing
a bucket twice adds taken off; it is given where at least two numbers occur.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from polyclinic.analyse.tally import FloatArray, IntArray

TIE = 1e-6  # nats, above what single precision adds to equal tables; a shuffle this near the estimate reaches it
BLOCKS, BLOCK_ROWS = 8, 64  # strata by size within a group: at most so many, of at least so many rows
TOGETHER = 20  # replicates that are drawn in one product


@dataclass(frozen=True)
class Rows:
    """Rows of tokens with what the engine needs to know of them; R rows, C cells."""

    cell_R: IntArray  # below C
    group_C: IntArray  # the group of each cell
    stratum_R: IntArray  # rows whose cells may change places; each stratum within one group
    unit_R: IntArray  # rows of one unit move together; a stratum has at most one row of a unit
    number_R: IntArray  # of the bucket
    counts_RLE: NDArray[np.float32]

    @property
    def num_cells(self) -> int:
        """Return C."""
        return len(self.group_C)


@dataclass(frozen=True)
class Association:
    """A measure in each of L layers, S shuffles and Q replicates of the bootstrap, in nats."""

    estimate_L: FloatArray
    most_L: FloatArray  # H(E | group), the most that could be known
    null_SL: FloatArray
    replicate_QL: FloatArray  # scores
    tokens: int  # in the table of one layer, as they are counted
    numbers: int  # distinct numbers of buckets

    @property
    def score_L(self) -> FloatArray:
        """Return (estimate - null) / (most - null); 0 where nothing could be known beyond chance."""
        null_L = self.null_SL.mean(0)
        return ratio(self.estimate_L - null_L, self.most_L - null_L)

    @property
    def p_value_L(self) -> FloatArray:
        """Return (1 + shuffles that reach the estimate) / (1 + shuffles)."""
        reaching = (self.null_SL >= self.estimate_L - TIE).sum(0)
        return np.asarray((1 + reaching) / (1 + len(self.null_SL)))


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole, 0 where the whole is nothing."""
    there = whole > TIE
    return np.where(there, part / np.where(there, whole, 1.0), 0.0)


def interval(values: FloatArray, numbers: int) -> tuple[float, float] | None:
    """Return the 95 % percentile interval, or None where fewer than two buckets can be drawn."""
    if numbers < 2:  # noqa: PLR2004
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def sized_strata(group_R: IntArray, size_R: IntArray, generator: np.random.Generator) -> IntArray:
    """Part the rows of each group into strata of rows of like size, ties at random.

    Large rows change places with large ones, so that the cells keep about as many tokens.
    """
    order = np.lexsort((generator.random(len(group_R)), size_R, group_R))
    groups, start, rows = np.unique(group_R[order], return_index=True, return_counts=True)
    place = np.searchsorted(groups, group_R[order])
    rank = np.arange(len(order)) - start[place]
    blocks = np.clip(rows // BLOCK_ROWS, 1, BLOCKS)
    strata = np.empty(len(order), dtype=np.int64)
    strata[order] = place * BLOCKS + rank * blocks[place] // rows[place]
    return strata


def associate(rows: Rows, shuffles: int, resamples: int, seed: int) -> Association:
    """Measure I(E; cell | group) of each layer with its null and the replicates of its score."""
    generator = np.random.default_rng(seed)
    observed = _table(rows, np.argsort(rows.cell_R, kind="stable"))
    tokens = max(1.0, float(observed[:, 0].sum()))
    coarse_L = _knowledge(_sums(rows.group_C, len(observed)) @ observed.reshape(len(observed), -1), observed.shape)
    most_L = -coarse_L / tokens
    estimate_L = most_L + _knowledge(observed, observed.shape) / tokens
    null = [
        most_L + _knowledge(_table(rows, order), observed.shape) / tokens
        for order in _shuffles(rows, shuffles, generator)
    ]
    null_SL = np.array(null).reshape(shuffles, -1)
    numbers, number_R = np.unique(rows.number_R, return_inverse=True)
    draws_QN = generator.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=resamples)
    replicate_QL = _replicates(rows, number_R, draws_QN, (estimate_L, most_L, null_SL.mean(0)))
    return Association(estimate_L, most_L, null_SL, replicate_QL, int(observed[:, 0].sum()), len(numbers))


def _shuffles(rows: Rows, shuffles: int, generator: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield rows in the order of their new cells: cells handed out anew within strata, units together.

    All tokens of a document go through the same layers, so one shuffle serves every layer.
    """
    strata = np.unique(rows.stratum_R, return_inverse=True)[1].astype(np.float64)
    places = np.argsort(rows.cell_R[np.argsort(strata, kind="stable")], kind="stable")
    units = int(rows.unit_R.max()) + 1
    for _ in range(shuffles):
        yield np.argsort(strata + generator.random(units)[rows.unit_R])[places]


def _table(rows: Rows, order: NDArray[np.intp]) -> NDArray[np.float32]:
    """Add rows up to a table [cell, layer, expert]; `order` holds the rows of cell 0, then of cell 1 and so on."""
    sizes = np.bincount(rows.cell_R, minlength=rows.num_cells)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ones = np.ones(len(order), dtype=np.float32)
    sums = sparse.csr_array((ones, order, starts), shape=(rows.num_cells, len(order)))
    return np.asarray(sums @ rows.counts_RLE.reshape(len(order), -1)).reshape(-1, *rows.counts_RLE.shape[1:])


def _sums(label: IntArray, size: int) -> Any:
    """Return the sparse matrix [label, row] whose product adds rows of one label up."""
    ones = np.ones(size, dtype=np.float32)
    return sparse.csr_array((ones, (label, np.arange(size))), shape=(int(label.max()) + 1, size))


def _knowledge(table: NDArray[np.float32], shape: tuple[int, ...]) -> FloatArray:
    """Return -tokens * H(expert | row) of each layer of a table [row, layer, expert], in nats."""
    table_RLE = table.reshape(-1, *shape[1:])
    num_experts = shape[-1]
    rows = (table_RLE.reshape(-1, num_experts) @ np.ones(num_experts, dtype=np.float32)).reshape(-1, shape[1])
    joint = _logs(table_RLE.reshape(len(table_RLE), -1)).sum(0, dtype=np.float64)
    return np.asarray(joint.reshape(-1, num_experts).sum(1) - _logs(rows).sum(0, dtype=np.float64))


def _logs(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return count * log(count); counts are whole numbers, so 1 stands in for 0."""
    out = np.maximum(counts, np.float32(1))
    np.log(out, out=out)
    out *= counts
    return out


def _replicates(
    rows: Rows, number_R: NDArray[np.intp], draws_QN: IntArray, point: tuple[FloatArray, FloatArray, FloatArray]
) -> FloatArray:
    """Return scores of the drawn replicates [replicate, layer], centred where the data stand.

    A replicate holds some buckets twice, which makes its estimate too high; the mean excess of the
    replicates over the data is taken off estimate and most before the score is built.
    """
    numbers = draws_QN.shape[1]
    joint = _sums(number_R * rows.num_cells + rows.cell_R, len(number_R))
    joint.resize((numbers * rows.num_cells, len(number_R)))
    groups = _sums(rows.group_C, rows.num_cells)
    scores = []
    for position in range(rows.counts_RLE.shape[1]):
        estimate, most, null = (float(values[position]) for values in point)
        table_NCE = (joint @ rows.counts_RLE[:, position]).reshape(numbers, rows.num_cells, -1)
        drawn, drawn_most = _drawn(table_NCE, groups, draws_QN)
        drawn += estimate - drawn.mean()
        drawn_most += most - drawn_most.mean()
        scores.append(ratio(drawn - null, drawn_most - null))
    return np.array(scores).T


def _drawn(table_NCE: NDArray[np.float32], groups: Any, draws_QN: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return estimate and most of one layer in each replicate."""
    numbers, num_cells, num_experts = table_NCE.shape
    within, coarse, tokens = [], [], []
    for start in range(0, len(draws_QN), TOGETHER):
        drawn = draws_QN[start : start + TOGETHER].astype(np.float32) @ table_NCE.reshape(numbers, -1)
        for table in drawn:
            table_CE = table.reshape(num_cells, num_experts)
            shape = (-1, 1, num_experts)
            within.append(_knowledge(table_CE, shape)[0])
            coarse.append(_knowledge(groups @ table_CE, shape)[0])
            tokens.append(max(1.0, float(table.sum(dtype=np.float64))))
    return (np.array(within) - coarse) / tokens, -np.array(coarse) / tokens
