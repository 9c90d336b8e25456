"""Token losses without the logits of a whole batch.

The output head is the widest product of a multilingual model: one pack of 4,096 tokens over 152,000
words is 2.5 GB of logits in fp32, and as much again for their gradient. Here the head answers with
losses instead of logits, some rows at a time; a piece's logits are computed again for its gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polyclinic.corpus.pack.pack import IGNORED

PIECE_BYTES = 1 << 28  # of fp32 logits that are held at a time


@contextmanager
def head_gives_losses(model: Any, labels_BS: Tensor) -> Iterator[None]:
    """Have the `logits` of a stock causal model be losses (batch, tokens) in nats while this holds.

    `labels_BS` stand where they are predicted from: shifted by one already. Ignored ones give 0.
    """
    head = model.get_output_embeddings()
    head.forward = partial(_losses, head, labels_BS.flatten())
    try:
        yield
    finally:
        del head.forward


def shifted(labels_BS: Tensor) -> Tensor:
    """Return each token's next label; the last of a row has none."""
    return F.pad(labels_BS[:, 1:], (0, 1), value=IGNORED)


def _losses(head: nn.Module, labels_T: Tensor, states_BSH: Tensor) -> Tensor:
    states_TH = states_BSH.flatten(0, 1)
    vocab_size = int(head.out_features)  # type: ignore[arg-type]
    rows = max(1, PIECE_BYTES // (4 * vocab_size))
    pieces = list(zip(torch.split(states_TH, rows), torch.split(labels_T, rows), strict=True))
    if len(pieces) == 1:
        return _cross_entropy(head, *pieces[0]).view(states_BSH.shape[:2]).clone()  # FSDP2 warns of views
    losses = [checkpoint(_cross_entropy, head, *piece, use_reentrant=False) for piece in pieces]
    return torch.cat(losses).view(states_BSH.shape[:2]).clone()


def _cross_entropy(head: nn.Module, states_TH: Tensor, labels_T: Tensor) -> Tensor:
    # Under autocast pieces would share one bf16 copy of the weights, and sum their gradients in it.
    torch.clear_autocast_cache()
    logits_TV = type(head).forward(head, states_TH).float()
    return F.cross_entropy(logits_TV, labels_T, ignore_index=IGNORED, reduction="none")
