"""Plain forwards over texts of unequal length: batches of like length, right-padded."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BATCH_TOKENS = 4096


def batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield groups of row indices of like length, at most BATCH_TOKENS tokens with padding."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and len(rows[index]) * (len(batch) + 1) > BATCH_TOKENS:
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
