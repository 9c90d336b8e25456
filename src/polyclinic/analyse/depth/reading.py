"""One pass of text through a dense model: how active and how relevant each FFN unit is, and sentence states.

A unit is one column of an FFN's down projection, h its activity. Its relevance is |h x dL/dh|, the
first-order change of the loss L of a text if the unit were switched off, from one backward pass;
activity is |h|. Both are means over tokens, summed here per bucket and language so that memory does
not grow with text. States are means over the tokens of a text after each layer.

Axes: B buckets, G languages, L layers, U units, N texts that several languages have, H hidden.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.analyse.depth.dense import down_projections
from polyclinic.analyse.depth.sample import BUCKETS, bucket
from polyclinic.analyse.passages import Passage
from polyclinic.moe.forward import Batch, next_losses, predicting
from polyclinic.progress import Progress

Floats = NDArray[np.float32]
MEMORY = 1 << 29  # bytes of each of the two tables, of units and of states
LOGITS = 1 << 24  # numbers of one batch's output, the largest part of a pass
LEAST, MOST = 512, 4096  # tokens of one batch, whatever the vocabulary
FEWEST_UNITS = 64


@dataclass(frozen=True)
class Reading:
    """What a pass found."""

    languages: tuple[str, ...]
    relevance_BGLU: Floats  # sums over tokens
    activity_BGLU: Floats
    tokens_BG: NDArray[np.int64]
    units: int  # of a layer; where fewer were read, every so many-th
    states_GNLH: Floats  # of texts that several languages have; zeros where a language lacks one
    has_GN: NDArray[np.bool_]
    groups: tuple[str, ...]  # N


def read(model: PreTrainedModel, passages: Sequence[Passage], progress: Progress) -> Reading:
    """Pass texts forward and backward once; see the head of this module.

    Raises CheckpointError for a model that is no dense one with gated FFNs.
    """
    projections = down_projections(model)
    languages = tuple(sorted({p.language for p in passages}))
    units = min(int(p.weight.shape[1]) for p in projections)  # type: ignore[index]
    room = MEMORY // (2 * 4 * BUCKETS * len(languages) * len(projections))
    num = min(units, max(FEWEST_UNITS, room))
    table = np.zeros((2, BUCKETS, len(languages), len(projections), num), dtype=np.float32)
    groups = _shared(passages, MEMORY // (4 * len(languages) * len(projections) * int(model.config.hidden_size)))
    states = np.zeros((len(languages), len(groups), len(projections), int(model.config.hidden_size)), np.float32)
    pass_ = _Pass(table, states, np.linspace(0, units - 1, num).astype(np.int64))
    tokens_BG = np.zeros((BUCKETS, len(languages)), dtype=np.int64)
    has_GN = np.zeros(states.shape[:2], dtype=np.bool_)
    most, done = min(MOST, max(LEAST, LOGITS // int(model.config.vocab_size))), 0
    with _hooked(model, projections, pass_):
        for batch in predicting([p.tokens for p in passages], most):
            rows = [passages[i] for i in batch.indices]
            where = [(bucket(p.group), languages.index(p.language)) for p in rows]
            numbers = [groups.get(p.group) for p in rows]
            places = [None if n is None else (g, n) for (_, g), n in zip(where, numbers, strict=True)]
            for (b, g), row, place in zip(where, rows, places, strict=True):
                tokens_BG[b, g] += len(row.tokens)
                if place is not None:
                    has_GN[place] = True
            pass_.run(model, batch, where, places)
            done += len(rows)
            progress.advance(done, len(passages), "documents")
    return Reading(languages, table[0], table[1], tokens_BG, units, states, has_GN, tuple(groups))


def _shared(passages: Sequence[Passage], most: int) -> dict[str, int]:
    """Return a number for each group that several languages have, the most languages first, up to `most`."""
    found: dict[str, set[str]] = {}
    for passage in passages:
        if len(passage.tokens) > 1:
            found.setdefault(passage.group, set()).add(passage.language)
    several = sorted((g for g, codes in found.items() if len(codes) > 1), key=lambda g: (-len(found[g]), g))
    return {group: number for number, group in enumerate(several[:most])}


class _Pass:
    """Takes what a forward and backward show of one batch."""

    def __init__(self, table: Floats, states: Floats, chosen_U: NDArray[np.int64]) -> None:
        self.table, self.states, self.chosen = table, states, torch.from_numpy(chosen_U)
        self.real_BS1 = torch.zeros(0)
        self.where: Sequence[tuple[int, int]] = ()
        self.places: Sequence[tuple[int, int] | None] = ()

    def run(
        self,
        model: PreTrainedModel,
        batch: Batch,
        where: Sequence[tuple[int, int]],
        places: Sequence[tuple[int, int] | None],
    ) -> None:
        """Run one batch."""
        self.real_BS1, self.where, self.places = batch.real_BS[:, :, None].float(), where, places
        losses_BS = next_losses(model, batch.tokens_BS)
        # A sum, not a mean: no token's gradient depends on how many others there are.
        torch.autograd.backward(losses_BS[batch.real_BS[:, 1:]].sum())

    def unit(self, layer: int, _: nn.Module, args: tuple[Any, ...]) -> None:
        """Take the activity of a layer's units, and ask for its gradient."""
        hidden = args[0]
        self._add(1, layer, hidden.detach().abs())
        hidden.register_hook(partial(self._relevance, layer, hidden.detach()))

    def _relevance(self, layer: int, hidden: Tensor, gradient: Tensor) -> None:
        self._add(0, layer, (gradient * hidden).abs())

    def _add(self, kind: int, layer: int, values_BSU: Tensor) -> None:
        sums = (values_BSU[..., self.chosen].float() * self.real_BS1).sum(1).numpy()
        for (b, g), row in zip(self.where, sums, strict=True):
            self.table[kind, b, g, layer] += row

    def state(self, layer: int, _: nn.Module, __: Any, output: Any) -> None:
        """Take the mean state of each text after a layer."""
        hidden = (output[0] if isinstance(output, tuple) else output).detach().float()
        means = ((hidden * self.real_BS1).sum(1) / self.real_BS1.sum(1)).numpy()
        for place, row in zip(self.places, means, strict=True):
            if place is not None:
                self.states[place[0], place[1], layer] = row


@contextmanager
def _hooked(model: PreTrainedModel, projections: Sequence[nn.Module], pass_: _Pass) -> Iterator[None]:
    """Let a pass see units and states; no weight gets a gradient, only what flows from the embeddings does."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    handles = [model.get_input_embeddings().register_forward_hook(lambda *a: a[2].requires_grad_())]
    for layer, (block, down) in enumerate(zip(model.get_decoder().layers, projections, strict=True)):
        handles.append(down.register_forward_pre_hook(partial(pass_.unit, layer)))
        handles.append(block.register_forward_hook(partial(pass_.state, layer)))
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
