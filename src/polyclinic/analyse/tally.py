"""What is counted while text is routed: the currency between capture, measures and causal checks.

Axes: B buckets of documents, G languages, L sparse layers, E experts, K picks a token, P deciles of
the position, M token ids, R rows, N entries, S listed tokens. All counts are int64 and every array
is of bounded size, however much text was routed.

A bucket holds whole documents of one language: a document goes to bucket hash(group) % 64, so
translations of one text meet in buckets of one number. Bootstrap and shuffles move buckets, never
tokens, since the tokens of a document are not independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LayerCounts:
    """Sparse counts [layer, row, expert]: one entry for each triple that occurs, layer after layer.

    Entries of the layer at position l are those from start_L[l] up to start_L[l + 1]; in what order
    they stand within a layer does not matter, and a triple occurs once. `picks_N` has no elements
    where all picks were not counted; else it is at least `first_N`, which may then be 0.
    """

    start_L: IntArray  # (L + 1,)
    row_N: IntArray  # (N,) index of the row
    expert_N: IntArray  # (N,)
    first_N: IntArray  # (N,) tokens whose heaviest pick is the expert
    picks_N: IntArray  # (N,) tokens that have the expert among their K picks, or (0,)


@dataclass(frozen=True)
class SharedTokens:
    """Counts by token id, for what a token's id and its predecessor say about the expert.

    `ids_M` are at most M vocabulary ids: the most frequent of those that at least two languages use,
    then the most frequent of the others. Tokens with other ids are not counted here. A row of the
    first table is a pair (token, bucket) that occurs, of the second a triple (token, predecessor,
    bucket) that occurs, for a bounded number of the most frequent pairs (token, predecessor); the
    first token of a document has no predecessor and is not in the second. Rows are distinct and
    sorted by their fields in the order given. Every row has at least one entry in every layer, and
    `first` sums to the same number of tokens in every layer.
    """

    ids_M: IntArray  # (M,) vocabulary ids
    token_R: IntArray  # (R,) index into ids_M
    bucket_R: IntArray  # (R,) index of the bucket, below B
    counts: LayerCounts  # rows: R
    pair_token_Q: IntArray  # (Q,) index into ids_M
    pair_previous_Q: IntArray  # (Q,) vocabulary id of the predecessor
    pair_bucket_Q: IntArray  # (Q,) index of the bucket, below B
    pair_counts: LayerCounts  # rows: Q; picks_N has no elements


@dataclass(frozen=True)
class TopTokens:
    """Per layer and expert the token ids listed as its own, in any order; -1 fills short lists."""

    id_LES: IntArray  # (L, E, S) vocabulary ids
    count_LES: IntArray  # (L, E, S) tokens with this id whose first pick is the expert
    total_LES: IntArray  # (L, E, S) tokens with this id, whatever their expert
    language_LES: IntArray  # (L, E, S) index of the language with most tokens of this id, or -1


@dataclass(frozen=True)
class Tally:
    """Everything counted while text was routed; see the head of this module for the axes.

    `own_GL` is zero for a language that no family serves. Sums (margin, entropy) are divided by the
    language's tokens by the measures.
    """

    layers: tuple[int, ...]  # decoder layers that hold experts
    num_experts: int
    top_k: int
    languages: tuple[str, ...]  # codes
    bucket_language: IntArray  # (B,) index of the bucket's language
    bucket_number: IntArray  # (B,) number of the bucket within its language; translations have the same
    first_BLE: IntArray  # (B, L, E) tokens whose heaviest pick is the expert; ties: the lowest expert
    picks_BLE: IntArray  # (B, L, E) tokens that have the expert among their K picks
    tokens_B: IntArray  # (B,) tokens
    co_LEE: IntArray  # (L, E, E) tokens with both experts among their picks; diagonal: picks
    next_GLEE: IntArray  # (G, L - 1, E, E) tokens with first pick i in layer l and j in the next sparse layer
    margin_GL: FloatArray  # (G, L) sum of the last pick's probability minus the best not picked
    entropy_GL: FloatArray  # (G, L) sum of the entropy of the router's distribution, nats
    position_LPE: IntArray  # (L, P, E) first picks by decile of the position in the text
    own_GL: IntArray  # (G, L) tokens with their family's expert among the K picks, unforced
    shared: SharedTokens
    top_tokens: TopTokens

    @property
    def num_tokens(self) -> int:
        """Return how many tokens were counted."""
        return int(self.tokens_B.sum())
