"""Count a batch's routes into arrays of fixed size, in torch and without a loop over tokens.

Axes as in `tally`; besides, R documents of a batch and T counted tokens of it. While counting, there
are BUCKETS buckets for each language; those that stay empty are left out at the end.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyclinic.analyse.capture import Call, heaviest
from polyclinic.analyse.sampling import Sample, shared_tokens, top_tokens
from polyclinic.analyse.tally import FloatArray, IntArray, Tally
from polyclinic.analyse.texts import BUCKETS

DECILES = 10


class Text(NamedTuple):
    """A document ready to be routed."""

    name: str
    language: int  # index
    bucket: int  # index among all: language * BUCKETS + number
    place: int  # of its group, decides whether it is sampled
    ids: list[int]
    counts: list[bool]  # whether a token is counted; special ones are not


class Batch:
    """Which tokens of a padded batch count, and what they belong to."""

    def __init__(self, texts: Sequence[Text], length: int) -> None:
        self.texts = texts
        rows = [np.flatnonzero(text.counts) for text in texts]
        sizes = np.array([len(row) for row in rows])
        row_T = np.repeat(np.arange(len(texts)), sizes)
        place_T = np.concatenate([np.arange(n) * DECILES // max(n, 1) for n in sizes])
        languages, language_R = np.unique([text.language for text in texts], return_inverse=True)
        self.kept_T = torch.from_numpy(np.concatenate([i * length + row for i, row in enumerate(rows)]))
        self.row_T, self.decile_T = torch.from_numpy(row_T), torch.from_numpy(place_T)
        self.ids_T = np.concatenate([np.array(t.ids, dtype=np.int64)[r] for t, r in zip(texts, rows, strict=True)])
        self.sizes_R, self.bucket_R = torch.from_numpy(sizes), torch.tensor([text.bucket for text in texts])
        self.languages = torch.from_numpy(languages)  # that occur in the batch
        self.language_T = torch.from_numpy(language_R)[self.row_T]  # index into those


class Counts:
    """The arrays that batches are counted into.

    `expert_of_G` is the expert of each language's family, -1 for none. With `is_forced`, the picks
    that the router would have made without being told are taken from its scores.
    """

    def __init__(
        self,
        layers: Sequence[int],
        experts: int,
        languages: Sequence[str],
        expert_of_G: Sequence[int],
        is_forced: bool = False,
        sample: Sample | None = None,
    ) -> None:
        self._layers, self._experts, self._languages = tuple(layers), experts, tuple(languages)
        self._family_G, self._is_forced, self.sample = torch.tensor(expert_of_G), is_forced, sample
        num, many, buckets = len(layers), len(languages), len(languages) * BUCKETS
        self._top_k = 0
        self._tokens_B = torch.zeros(buckets, dtype=torch.long)
        self._first_LBE = torch.zeros(num, buckets, experts, dtype=torch.long)
        self._picks_LBE = torch.zeros(num, buckets, experts, dtype=torch.long)
        self._co_LEE = torch.zeros(num, experts, experts, dtype=torch.long)
        self._next_LGEE = torch.zeros(max(num - 1, 0), many, experts, experts, dtype=torch.long)
        self._margin_LG = torch.zeros(num, many, dtype=torch.double)
        self._entropy_LG = torch.zeros(num, many, dtype=torch.double)
        self._own_LG = torch.zeros(num, many, dtype=torch.long)
        self._position_LPE = torch.zeros(num, DECILES, experts, dtype=torch.long)
        self._batch: Batch
        self._before_T: Tensor  # first picks in the sparse layer before

    def begin(self, batch: Batch) -> None:
        """Take the batch that the next forward is made with."""
        self._batch = batch
        self._tokens_B.index_add_(0, batch.bucket_R, batch.sizes_R)
        if self.sample is not None:
            self.sample.begin(batch.texts, batch.sizes_R.tolist(), batch.ids_T)

    def end(self) -> None:
        """Close a batch once its forward is done."""
        if self.sample is not None:
            self.sample.end()

    def see(self, position: int, call: Call) -> None:
        """Count what one layer's experts were called with."""
        batch, num = self._batch, self._experts
        kept_T = batch.kept_T.to(call.picks_TK.device)
        call = Call(*(None if part is None else part[kept_T].cpu() for part in call))  # type: ignore[arg-type]
        self._top_k = call.picks_TK.shape[1]
        first_T = heaviest(call, num)
        chosen_TE = torch.zeros(len(first_T), num).scatter_(1, call.picks_TK, 1.0)
        self._first_LBE[position].index_add_(0, batch.bucket_R, self._by_row(first_T))
        rows_RE = torch.zeros(len(batch.texts), num).index_add_(0, batch.row_T, chosen_TE)
        self._picks_LBE[position].index_add_(0, batch.bucket_R, rows_RE.long())
        self._co_LEE[position] += (chosen_TE.T @ chosen_TE).long()
        self._position_LPE[position] += _table(batch.decile_T, first_T, DECILES, num)
        if position:
            pair_T = self._before_T * num + first_T
            table = _table(batch.language_T, pair_T, len(batch.languages), num * num)
            self._next_LGEE[position - 1].index_add_(0, batch.languages, table.reshape(-1, num, num))
        self._before_T = first_T
        self._add_scores(position, call, chosen_TE)
        if self.sample is not None:
            self.sample.see(position, first_T, call)

    def _by_row(self, first_T: Tensor) -> Tensor:
        return _table(self._batch.row_T, first_T, len(self._batch.texts), self._experts)

    def _add_scores(self, position: int, call: Call, chosen_TE: Tensor) -> None:
        """Add margins, entropies and, of forced picks, what would have been picked unforced."""
        batch, probs_TE = self._batch, call.probs_TE
        if probs_TE is None:
            self._margin_LG[position] = self._entropy_LG[position] = torch.nan
            return
        is_chosen_TE = chosen_TE > 0
        last_T = probs_TE.masked_fill(~is_chosen_TE, 1.0).amin(1)
        next_T = probs_TE.masked_fill(is_chosen_TE, 0.0).amax(1)
        entropy_T = torch.special.entr(probs_TE).sum(1)
        for sums_LG, value_T in ((self._margin_LG, last_T - next_T), (self._entropy_LG, entropy_T)):
            parts = torch.zeros(len(batch.languages), dtype=torch.double)
            parts.index_add_(0, batch.language_T, value_T.double())
            sums_LG[position].index_add_(0, batch.languages, parts)
        if self._is_forced:
            free_TK = probs_TE.topk(self._top_k, dim=-1).indices
            family_T = self._family_G[batch.languages][batch.language_T]
            is_own_T = (free_TK == family_T[:, None]).any(1)
            parts = torch.bincount(batch.language_T[is_own_T], minlength=len(batch.languages))
            self._own_LG[position].index_add_(0, batch.languages, parts)

    def tally(self) -> Tally:
        """Return everything counted."""
        full = np.flatnonzero(self._tokens_B.numpy())
        language_B, number_B = full // BUCKETS, full % BUCKETS
        picks_BLE = _moved(self._picks_LBE)[full]
        own_GL = self._own_LG.T.numpy().copy() if self._is_forced else self._own(picks_BLE, language_B)
        sample = self.sample or Sample(len(self._layers), len(self._languages), 0)
        taken = sample.taken(full)
        return Tally(
            layers=self._layers,
            num_experts=self._experts,
            top_k=self._top_k,
            languages=self._languages,
            bucket_language=language_B,
            bucket_number=number_B,
            first_BLE=_moved(self._first_LBE)[full],
            picks_BLE=picks_BLE,
            tokens_B=self._tokens_B.numpy()[full],
            co_LEE=self._co_LEE.numpy(),
            next_GLEE=_moved(self._next_LGEE),
            margin_GL=_sums(self._margin_LG),
            entropy_GL=_sums(self._entropy_LG),
            position_LPE=self._position_LPE.numpy(),
            own_GL=own_GL,
            shared=shared_tokens(taken, language_B, self._experts),
            top_tokens=top_tokens(taken, language_B, self._experts),
        )

    def _own(self, picks_BLE: IntArray, language_B: IntArray) -> IntArray:
        """Return tokens with their family's expert among free picks: each has an expert once at most."""
        out = np.zeros((len(self._languages), len(self._layers)), dtype=np.int64)
        for g, expert in enumerate(self._family_G.tolist()):
            if expert >= 0:
                out[g] = picks_BLE[language_B == g, :, expert].sum(0)
        return out


def _table(row_T: Tensor, column_T: Tensor, rows: int, columns: int) -> Tensor:
    """Count pairs of indices into a table (rows, columns)."""
    return torch.bincount(row_T * columns + column_T, minlength=rows * columns).reshape(rows, columns)


def _moved(counts: Tensor) -> IntArray:
    """Return counts [layer, other, ...] as [other, layer, ...]."""
    return np.ascontiguousarray(counts.numpy().swapaxes(0, 1))


def _sums(sums_LG: Tensor) -> FloatArray:
    return np.ascontiguousarray(sums_LG.numpy().T)
