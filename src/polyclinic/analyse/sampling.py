"""What is kept of single tokens: a sample of whole documents, of bounded size.

Of each language, documents are kept whose group comes first by hash, until they hold a set number
of tokens. So the sample is the same in whatever order texts come, and translations are in it
together. Shared tokens, token pairs, most specific tokens and the token table are all made of it.

Axes as in `tally`; besides, D documents and T tokens of the sample, U distinct token ids.
"""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyclinic.analyse.capture import Call
from polyclinic.analyse.tally import IntArray, LayerCounts, SharedTokens, TopTokens

MAX_TOKENS = 120_000  # in the sample
MAX_PICKS = 4_000_000  # tokens x layers x picks in the sample
MAX_IDS = 2_000
MAX_PAIRS = 4_000
TOP = 50  # token ids listed for an expert
FLOOR = 5  # tokens of an id, below which it is not listed


class Kept(NamedTuple):
    """A document of the sample."""

    name: str
    language: int
    bucket: int
    ids_T: IntArray
    first_LT: NDArray[np.int16]
    picks_LTK: NDArray[np.int16]
    weights_LTK: NDArray[np.float32] | None


class Taken(NamedTuple):
    """The tokens of the sample, one document after another."""

    ids_T: IntArray
    previous_T: IntArray  # -1 for the first token of a document
    bucket_T: IntArray  # index among the buckets that hold text
    first_LT: NDArray[np.int16]
    picks_LTK: NDArray[np.int16]


class Sample:
    """The documents kept so far; `quota` tokens of each language, one document at least."""

    def __init__(self, layers: int, languages: int, quota: int, with_weights: bool = False) -> None:
        self._layers, self._quota, self._with_weights = layers, quota, with_weights
        # largest first: what leaves when there is too much
        self._heaps: list[list[tuple[int, str, int, Kept]]] = [[] for _ in range(languages)]
        self._number = 0  # of documents taken, so that two of one name can be compared
        self._tokens = [0] * languages
        self._wanted: list[tuple[Any, slice]] = []
        self._now_T: Tensor
        self._seen: list[tuple[Any, ...]]

    def begin(self, texts: Sequence[Any], sizes: Sequence[int], ids_T: IntArray) -> None:
        """Choose what of a batch may be kept."""
        ends = np.cumsum(sizes)
        spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._wanted = [(t, s) for t, s in zip(texts, spans, strict=True) if s.stop > s.start and self._wants(t)]
        now = [np.arange(s.start, s.stop) for _, s in self._wanted]
        self._now_T = torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *now]))
        self._ids_T, self._seen = ids_T, []

    def _wants(self, text: Any) -> bool:
        heap = self._heaps[text.language]
        return self._quota > 0 and (self._tokens[text.language] < self._quota or (-text.place, text.name) > heap[0][:2])

    def see(self, position: int, first_T: Tensor, call: Call) -> None:
        """Keep one layer's picks of what was chosen; layers come in order."""
        if self._wanted:
            picks = call.picks_TK[self._now_T].to(torch.int16).numpy()
            weights = call.weights_TK[self._now_T].float().numpy() if self._with_weights else None
            self._seen.append((first_T[self._now_T].to(torch.int16).numpy(), picks, weights))

    def end(self) -> None:
        """Take the chosen documents in, and let go of those that are too many."""
        start = 0
        for text, span in self._wanted:
            part = slice(start, start := start + span.stop - span.start)
            first, picks = (np.stack([seen[i][part] for seen in self._seen]) for i in (0, 1))
            weights = np.stack([seen[2][part] for seen in self._seen]) if self._with_weights else None
            kept = Kept(text.name, text.language, text.bucket, self._ids_T[span].copy(), first, picks, weights)
            self._number += 1
            heapq.heappush(self._heaps[text.language], (-text.place, text.name, self._number, kept))
            self._tokens[text.language] += len(kept.ids_T)
            self._let_go(text.language)

    def _let_go(self, language: int) -> None:
        heap = self._heaps[language]
        while len(heap) > 1 and self._tokens[language] - len(heap[0][3].ids_T) >= self._quota:
            self._tokens[language] -= len(heapq.heappop(heap)[3].ids_T)

    def documents(self) -> list[Kept]:
        """Return what is kept, by language and then in the order of the hash."""
        return [entry[3] for heap in self._heaps for entry in sorted(heap, key=lambda e: (-e[0], e[1]))]

    def taken(self, buckets: IntArray) -> Taken:
        """Return the tokens of the sample; `buckets` are those that hold text, and give the indices."""
        kept = self.documents()
        none = np.empty((self._layers, 0), dtype=np.int16)
        top_k = kept[0].picks_LTK.shape[2] if kept else 1
        previous = [np.concatenate([[-1], k.ids_T[:-1]]) for k in kept]
        bucket = [np.full(len(k.ids_T), np.searchsorted(buckets, k.bucket)) for k in kept]
        empty = np.empty(0, dtype=np.int64)
        return Taken(
            np.concatenate([empty, *(k.ids_T for k in kept)]),
            np.concatenate([empty, *previous]),
            np.concatenate([empty, *bucket]),
            np.concatenate([none, *(k.first_LT for k in kept)], axis=1),
            np.concatenate([np.repeat(none[..., None], top_k, axis=2), *(k.picks_LTK for k in kept)], axis=1),
        )


def quota(layers: int, top_k: int, languages: int) -> int:
    """Return how many tokens of a language the sample holds."""
    return max(min(MAX_TOKENS, MAX_PICKS // (layers * top_k)) // languages, 1)


def shared_tokens(taken: Taken, language_B: IntArray, experts: int) -> SharedTokens:
    """Count the most frequent token ids, those of two languages or more first, by bucket and expert."""
    ids_M = _frequent(taken, language_B)
    order = np.argsort(ids_M)
    at_T = np.searchsorted(ids_M[order], taken.ids_T) if len(ids_M) else np.zeros(len(taken.ids_T), dtype=np.int64)
    at_T = np.minimum(at_T, max(len(ids_M) - 1, 0))
    is_in_T = ids_M[order][at_T] == taken.ids_T if len(ids_M) else np.zeros(len(taken.ids_T), dtype=bool)
    token_T = order[at_T] if len(ids_M) else at_T
    (token_R, bucket_R), row_T = _rows(token_T[is_in_T], taken.bucket_T[is_in_T])
    counts = _layer_counts(row_T, taken.first_LT[:, is_in_T], taken.picks_LTK[:, is_in_T], experts)
    in_pair_T = is_in_T & (taken.previous_T >= 0)
    in_pair_T[in_pair_T] = _common_pairs(token_T[in_pair_T], taken.previous_T[in_pair_T])
    fields = (token_T[in_pair_T], taken.previous_T[in_pair_T], taken.bucket_T[in_pair_T])
    (pair_token, previous, pair_bucket), pair_row_T = _rows(*fields)
    pairs = _layer_counts(pair_row_T, taken.first_LT[:, in_pair_T], None, experts)
    return SharedTokens(ids_M, token_R, bucket_R, counts, pair_token, previous, pair_bucket, pairs)


def _frequent(taken: Taken, language_B: IntArray) -> IntArray:
    """Return at most MAX_IDS token ids: those of several languages, then the others, most frequent first."""
    fields, row_T = _rows(taken.ids_T, language_B[taken.bucket_T])
    ids_U, at_R, languages_U = np.unique(fields[0], return_inverse=True, return_counts=True)
    count_U = np.bincount(at_R, np.bincount(row_T, minlength=len(at_R)), minlength=len(ids_U)).astype(np.int64)
    order = np.lexsort((ids_U, -count_U, languages_U < 2))  # noqa: PLR2004
    return ids_U[order[:MAX_IDS]]


def _common_pairs(token_T: IntArray, previous_T: IntArray) -> NDArray[np.bool_]:
    """Say which tokens belong to the MAX_PAIRS most frequent pairs of token and predecessor."""
    _, row_T = _rows(token_T, previous_T)
    count_R = np.bincount(row_T)
    most = np.argsort(-count_R, kind="stable")[:MAX_PAIRS]
    is_most_R = np.zeros(len(count_R), dtype=bool)
    is_most_R[most] = True
    return is_most_R[row_T]


def _rows(*fields: IntArray) -> tuple[list[IntArray], IntArray]:
    """Return the distinct rows of columns, sorted in the order of the columns, and each entry's row."""
    order = np.lexsort(fields[::-1])
    ordered = [field[order] for field in fields]
    is_new = np.zeros(len(order), dtype=bool)
    is_new[:1] = True
    for field in ordered:
        is_new[1:] |= field[1:] != field[:-1]
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.cumsum(is_new) - 1
    return [field[is_new] for field in ordered], row


def _layer_counts(
    row_T: IntArray, first_LT: NDArray[np.int16], picks_LTK: NDArray[np.int16] | None, experts: int
) -> LayerCounts:
    """Count (row, expert) in each layer, by first pick and, where given, by all picks."""
    parts: list[list[IntArray]] = [[], [], [], []]
    for layer, first_T in enumerate(first_LT):
        key_T = row_T * experts + first_T
        every = key_T if picks_LTK is None else _each_once(row_T[:, None] * experts + picks_LTK[layer])
        keys, counts = np.unique(every, return_counts=True)
        first = np.bincount(np.searchsorted(keys, key_T), minlength=len(keys))
        for part, values in zip(parts, (keys // experts, keys % experts, first, counts), strict=True):
            part.append(values)
    start = np.cumsum([0, *map(len, parts[0])])
    if picks_LTK is None:
        parts[3] = []
    fields = [_joined(parts.pop(0)) for _ in range(4)]  # each part goes once it is joined: the tables are large
    return LayerCounts(start, *fields)


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _each_once(key_TK: IntArray) -> IntArray:
    """Return the keys of all tokens; one that a token has twice, once."""
    sorted_TK = np.sort(key_TK, axis=1)
    is_new_TK = np.ones(sorted_TK.shape, dtype=bool)
    is_new_TK[:, 1:] = sorted_TK[:, 1:] != sorted_TK[:, :-1]
    return sorted_TK[is_new_TK]


def top_tokens(taken: Taken, language_B: IntArray, experts: int) -> TopTokens:
    """List, for each layer and expert, the ids that tell most for it: count times log of the lift."""
    layers = len(taken.first_LT)
    ids_U, at_T, count_U = np.unique(taken.ids_T, return_inverse=True, return_counts=True)
    language_U = _main_language(at_T, language_B[taken.bucket_T], len(ids_U))
    out = [np.full((layers, experts, TOP), -1, dtype=np.int64) for _ in range(4)]
    often_U = np.flatnonzero(count_U >= FLOOR)
    rank_U = np.full(len(ids_U), -1)
    rank_U[often_U] = np.arange(len(often_U))
    rank_T = rank_U[at_T]
    for layer, first_T in enumerate(taken.first_LT):
        key_T = rank_T[rank_T >= 0] * experts + first_T[rank_T >= 0]
        table_UE = np.bincount(key_T, minlength=len(often_U) * experts).reshape(-1, experts)
        expected_UE = count_U[often_U, None] * np.bincount(first_T, minlength=experts) / max(len(first_T), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight_UE = np.where(table_UE >= FLOOR, table_UE * np.log(table_UE / expected_UE), -np.inf)
        best_SE = np.argsort(-weight_UE, axis=0, kind="stable")[:TOP]
        for expert in range(experts):
            best = best_SE[weight_UE[best_SE[:, expert], expert] > 0, expert]
            chosen, n = often_U[best], len(best)
            values = (ids_U[chosen], table_UE[best, expert], count_U[chosen], language_U[chosen])
            for array, value in zip(out, values, strict=True):
                array[layer, expert, :n] = value
    for array in out[1:3]:
        array[array < 0] = 0
    return TopTokens(*out)


def _main_language(at_T: IntArray, language_T: IntArray, ids: int) -> IntArray:
    """Return the language with most tokens of each id."""
    (at_R, language_R), row_T = _rows(at_T, language_T)
    count_R = np.bincount(row_T, minlength=len(at_R))
    out = np.full(ids, -1, dtype=np.int64)
    order = np.lexsort((-language_R, count_R))  # the largest count is written last; of equal ones, the first language
    out[at_R[order]] = language_R[order]
    return out
