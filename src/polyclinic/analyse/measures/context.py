"""What the token before says about the expert, beyond the token's own id."""

import numpy as np

from polyclinic.analyse.measures.association import Association, Rows, associate
from polyclinic.analyse.measures.information import (
    FEWEST,
    PARTS,
    RESAMPLES,
    dense_counts,
    frequent_first,
    numbered,
    row_limit,
    row_sizes,
)
from polyclinic.analyse.tally import IntArray, Tally


def context(tally: Tally, shuffles: int, seed: int) -> Association | None:
    """Measure 1 - H(E|T, L, previous) / H(E|T, L) in each layer as the score of an association.

    With one language that is the score of one text, 1 - H(E|T, previous) / H(E|T). Over the pairs (id,
    predecessor) with at least 8 tokens whose id has two such pairs. The null hands the predecessors of
    one id out anew within each part of a language's buckets, so neither the language nor a document's
    own taste counts as context. None without such pairs.
    """
    shared, num = tally.shared, len(tally.languages)
    sizes = row_sizes(shared.pair_counts, len(shared.pair_token_Q))
    pair_Q = _pairs(shared.pair_token_Q, shared.pair_previous_Q)
    kept = _frequent(pair_Q, shared.pair_token_Q, sizes)
    if not kept.any():
        return None
    language_Q = tally.bucket_language[shared.pair_bucket_Q]
    part_Q = tally.bucket_number[shared.pair_bucket_Q] % PARTS
    keys, first = numbered(((pair_Q * num + language_Q) * PARTS + part_Q)[kept])
    token_U = shared.pair_token_Q[kept][first]
    few = frequent_first(token_U, np.bincount(keys, sizes[kept]).astype(np.int64), row_limit(tally))
    row_Q = np.full(len(sizes), -1, dtype=np.int64)
    row_Q[kept] = few[keys]
    chosen = first[few >= 0]
    return _associated(tally, row_Q, np.flatnonzero(kept)[chosen], shuffles, seed)


def _associated(tally: Tally, row_Q: IntArray, source_U: IntArray, shuffles: int, seed: int) -> Association:
    """Associate predecessors with experts within ids; `source_U` is a row of the tally for each row here."""
    shared, num = tally.shared, len(tally.languages)
    counts = dense_counts(shared.pair_counts, row_Q, tally, every=False)
    token_U, bucket_U = shared.pair_token_Q[source_U], shared.pair_bucket_Q[source_U]
    within_U = token_U * num + tally.bucket_language[bucket_U]
    part_U = tally.bucket_number[bucket_U] % PARTS
    cells, first = numbered(_pairs(within_U, shared.pair_previous_Q[source_U]))
    groups, _ = numbered(within_U)
    rows = Rows(cells, groups[first], within_U * PARTS + part_U, np.arange(len(cells)), part_U, counts)
    return associate(rows, shuffles, RESAMPLES, seed)


def _pairs(token_Q: IntArray, previous_Q: IntArray) -> IntArray:
    return token_Q * (int(previous_Q.max(initial=0)) + 1) + previous_Q


def _frequent(pair_Q: IntArray, token_Q: IntArray, size_Q: IntArray) -> IntArray:
    """Return whether each row's pair has tokens enough and its id two such pairs."""
    pairs, first = numbered(pair_Q)
    often = np.bincount(pairs, size_Q, len(first)) >= FEWEST
    several = np.bincount(token_Q[first][often], minlength=int(token_Q.max(initial=0)) + 1) > 1
    return np.asarray(often[pairs] & several[token_Q])
