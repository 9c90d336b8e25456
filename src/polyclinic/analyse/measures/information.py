"""What the expert says about language and token id, with chance taken off (docs/analyse.md).

Over the first pick of each token, or over all picks: then the expert is one of the token's K picks,
each as likely as the others, and the counts are K times the tokens. I(E;L) is over all tokens; the
figures that hold the token id are over the ids of `SharedTokens`, where a language uses an id often
enough, and I(E;L|T) over the ids that so at least two languages use.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyclinic.analyse.measures.association import (
    Association,
    Rows,
    associate,
    interval,
    sized_strata,
)
from polyclinic.analyse.tally import FloatArray, IntArray, LayerCounts, Tally

FEWEST = 8  # tokens of an id in a language, more where there are more experts
FLOOR = 64  # which is enough however many experts there are
PARTS = 16  # buckets of a language are joined to so many for figures by id: rows are few and not too small
MAX_COUNTS = 2**22  # rows * layers * experts of a figure by id, the most frequent ids first: bounds the time,
MIN_ROWS = 8_000  # but so many rows are let in
RESAMPLES = 100


class Used(NamedTuple):
    """Rows (id, language, part) whose id is frequent enough."""

    row_R: IntArray  # of the tally: the row here, or -1
    token_U: IntArray
    language_U: IntArray
    part_U: IntArray
    size_U: IntArray  # tokens


def bucket_rows(tally: Tally, counts_BLE: IntArray) -> Rows:
    """Return the buckets as rows and languages as cells, for I(E;L)."""
    buckets = np.arange(len(tally.tokens_B))
    one_group = np.zeros(len(tally.languages), dtype=np.int64)
    counts = counts_BLE.astype(np.float32)
    return Rows(tally.bucket_language, one_group, np.zeros_like(buckets), buckets, tally.bucket_number, counts)


def language_information(tally: Tally, every: bool, shuffles: int, seed: int) -> Association:
    """Measure I(E;L) in each layer; whole buckets change languages."""
    counts = tally.picks_BLE if every else tally.first_BLE
    return associate(bucket_rows(tally, counts), shuffles, RESAMPLES, seed)


def used_rows(tally: Tally, in_languages: int) -> Used:
    """Choose rows whose id is frequent in the row's language, and in so many languages.

    An id counts in a language with at least E tokens, no fewer than 8 and no more than 64 asked: from
    fewer tokens no distribution over E experts can be had. A language must hold two such ids, unless
    languages are compared within an id.
    """
    shared, num = tally.shared, len(tally.languages)
    language_R = tally.bucket_language[shared.bucket_R]
    size_R = row_sizes(shared.counts, len(shared.token_R))
    totals = np.bincount(shared.token_R * num + language_R, size_R, len(shared.ids_M) * num)
    often_MG = totals.reshape(-1, num) >= min(max(FEWEST, tally.num_experts), FLOOR)
    often_MG &= (often_MG.sum(1) >= in_languages)[:, None]
    if in_languages == 1:
        often_MG &= often_MG.sum(0) > 1
    kept = np.flatnonzero(often_MG[shared.token_R, language_R])
    part_R = tally.bucket_number[shared.bucket_R] % PARTS
    keys = (shared.token_R * num + language_R) * PARTS + part_R
    names, place = np.unique(keys[kept], return_inverse=True)
    sizes = np.bincount(place, size_R[kept], len(names)).astype(np.int64)
    few = frequent_first(names // (num * PARTS), sizes, row_limit(tally))
    row_R = np.full(len(keys), -1, dtype=np.int64)
    row_R[kept] = few[place]
    names, sizes = names[few >= 0], sizes[few >= 0]
    return Used(row_R, names // (num * PARTS), names // PARTS % num, names % PARTS, sizes)


def row_limit(tally: Tally) -> int:
    """Return how many rows a figure by id may have."""
    return max(MIN_ROWS, MAX_COUNTS // (len(tally.layers) * tally.num_experts))


def row_sizes(counts: LayerCounts, num_rows: int) -> IntArray:
    """Return the tokens of each row."""
    one_layer = slice(int(counts.start_L[0]), int(counts.start_L[1]))
    return np.bincount(counts.row_N[one_layer], counts.first_N[one_layer], num_rows).astype(np.int64)


def frequent_first(token_U: IntArray, size_U: IntArray, limit: int) -> IntArray:
    """Return new numbers of the rows of the most frequent ids, whole ids up to the limit; -1 for the others."""
    totals, rows = np.bincount(token_U, size_U), np.bincount(token_U)
    ranked = np.argsort(-totals, kind="stable")
    chosen = np.zeros(len(totals), dtype=bool)
    chosen[ranked[: max(1, int((np.cumsum(rows[ranked]) <= limit).sum()))]] = True
    there = chosen[token_U]
    return np.where(there, np.cumsum(there) - 1, -1)


def dense_counts(counts: LayerCounts, row_R: IntArray, tally: Tally, every: bool) -> NDArray[np.float32]:
    """Return counts [row, layer, expert], the tally's rows added up to the rows that `row_R` names."""
    values = counts.picks_N if every else counts.first_N
    num, num_rows = tally.num_experts, int(row_R.max(initial=-1)) + 1
    out = np.zeros((num_rows, len(tally.layers), num), dtype=np.float32)
    for layer, (start, stop) in enumerate(zip(counts.start_L[:-1], counts.start_L[1:], strict=True)):
        row = row_R[counts.row_N[start:stop]]
        there = row >= 0
        keys = row[there] * num + counts.expert_N[start:stop][there]
        out[:, layer] = np.bincount(keys, values[start:stop][there], num_rows * num).reshape(-1, num)
    return out


def token_information(tally: Tally, every: bool, shuffles: int, seed: int) -> dict[str, Association]:
    """Measure I(E;T|L), I(E;T) and I(E;L|T) in each layer; left out is what has no id frequent enough.

    The null of the first two hands ids out anew over rows of like size (of one language for the
    first), that of the last languages over the rows of one id, buckets moving together.
    """
    generator = np.random.default_rng(seed)
    used, common = used_rows(tally, 1), used_rows(tally, 2)
    tables = {}
    if len(used.token_U):
        counts, alone = dense_counts(tally.shared.counts, used.row_R, tally, every), np.arange(len(used.token_U))
        pairs, first = numbered(used.token_U * len(tally.languages) + used.language_U)
        strata = sized_strata(used.language_U, used.size_U, generator)
        tables["I(E;T|L)"] = Rows(pairs, used.language_U[first], strata, alone, used.part_U, counts)
        ids, first = numbered(used.token_U)
        strata = sized_strata(np.zeros_like(ids), used.size_U, generator)
        tables["I(E;T)"] = Rows(ids, np.zeros_like(first), strata, alone, used.part_U, counts)
    if len(common.token_U):
        counts = dense_counts(tally.shared.counts, common.row_R, tally, every)
        pairs, first = numbered(common.token_U * len(tally.languages) + common.language_U)
        units = common.language_U * PARTS + common.part_U
        tables["I(E;L|T)"] = Rows(pairs, common.token_U[first], common.token_U, units, common.part_U, counts)
    return {name: associate(rows, shuffles, RESAMPLES, seed) for name, rows in tables.items()}


def numbered(labels: IntArray) -> tuple[IntArray, IntArray]:
    """Return labels as numbers from 0, and a row of each."""
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    return index.astype(np.int64), first


def as_facts(measure: Association, layers: tuple[int, ...]) -> dict[str, Any]:
    """Return a measure as plain values: `layers`, one object each, `depth`, `n` and `buckets`."""
    score, p_value, null = measure.score_L, measure.p_value_L, measure.null_SL.mean(0)
    rows = [
        {
            "layer": layer,
            "estimate": float(measure.estimate_L[i]),
            "null": float(null[i]),
            "most": float(measure.most_L[i]),
            "score": float(score[i]),
            "interval": interval(measure.replicate_QL[:, i], measure.numbers),
            "p_value": float(p_value[i]),
        }
        for i, layer in enumerate(layers)
    ]
    return {"layers": rows, "depth": depth(measure), "n": measure.tokens, "buckets": measure.numbers}


def depth(measure: Association) -> dict[str, Any] | None:
    """Return how the score changes with depth; None for fewer than two layers.

    `slope` is the change of the score from first to last sparse layer on the least-squares line,
    `late_over_early` the mean score of the last third of layers over that of the first third, None
    where the early mean is not above 0.
    """
    if len(measure.estimate_L) < 2:  # noqa: PLR2004
        return None
    point, drawn = measure.score_L[None], measure.replicate_QL
    ratio_interval = interval(_late_over_early(drawn), measure.numbers) if (_thirds(drawn)[0] > 0).all() else None
    early, late = (float(value[0]) for value in _thirds(point))
    return {
        "slope": float(_slope(point)[0]),
        "slope_interval": interval(_slope(drawn), measure.numbers),
        "early": early,
        "late": late,
        "late_over_early": late / early if early > 0 else None,
        "late_over_early_interval": ratio_interval,
    }


def _slope(score_QL: FloatArray) -> FloatArray:
    place = np.linspace(0.0, 1.0, score_QL.shape[1])
    return np.asarray(np.polyfit(place, score_QL.T, 1)[0])


def _thirds(score_QL: FloatArray) -> tuple[FloatArray, FloatArray]:
    third = max(1, score_QL.shape[1] // 3)
    return score_QL[:, :third].mean(1), score_QL[:, -third:].mean(1)


def _late_over_early(score_QL: FloatArray) -> FloatArray:
    early, late = _thirds(score_QL)
    return late / early
