"""Plain forwards over texts of unequal length: batches of like length, right-padded, and what tokens cost."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

BATCH_TOKENS = 4096


class Batch(NamedTuple):
    """Rows that go through a model together."""

    indices: list[int]  # of the rows
    tokens_BS: Tensor
    real_BS: Tensor  # bool: not padding


def batches(rows: Sequence[Sequence[int]], most: int | None = None) -> Iterator[list[int]]:
    """Yield groups of row indices of like length, at most `most` (BATCH_TOKENS) tokens with padding."""
    most = most or BATCH_TOKENS
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and len(rows[index]) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows as (rows, longest) with zeros behind; causal attention hides them from real tokens."""
    out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def predicting(rows: Sequence[Sequence[int]], most: int | None = None) -> Iterator[Batch]:
    """Yield the batches in which something is guessed: a row of one token has nothing before it."""
    for indices in batches(rows, most):
        tokens_BS = padded([rows[i] for i in indices])
        if tokens_BS.shape[1] > 1:
            lengths = torch.tensor([[len(rows[i])] for i in indices])
            yield Batch(indices, tokens_BS, torch.arange(tokens_BS.shape[1]) < lengths)


def next_losses(model: PreTrainedModel, tokens_BS: Tensor) -> Tensor:
    """Return the nats of every token after the first of its row, (rows, length - 1), padding included."""
    logits = model(input_ids=tokens_BS, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.transpose(1, 2), tokens_BS[:, 1:], reduction="none")


@torch.no_grad()
def token_losses(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the row, nats of its tokens after the first), rows of like length together."""
    for batch in predicting(rows):
        for losses_S, index in zip(next_losses(model, batch.tokens_BS), batch.indices, strict=True):
            yield index, losses_S[: max(0, len(rows[index]) - 1)]
