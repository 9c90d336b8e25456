"""Count which experts each document's tokens go to, where the experts are called.

Hooks sit on the experts modules and read the picks that were used, whatever router made them.
Family ids stay off: with the family forced, expert and language would be tied by construction.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.forward import batches, padded


class Encoded(NamedTuple):
    """A document ready for the model."""

    language: str
    tokens: list[int]


class Routes(NamedTuple):
    """Token counts [document, layer, expert] and what the axes mean."""

    layers: list[int]  # decoder indices of the sparse layers
    languages: list[str]  # of each document
    first_DLE: NDArray[np.int64]  # first pick of each token
    all_DLE: NDArray[np.int64]  # all picks


@torch.no_grad()
def capture(model: PreTrainedModel, documents: Sequence[Encoded]) -> Routes:
    """Run plain forwards over documents and count picks; padding never enters a count."""
    layers = sparse_layers(model)
    shape = (len(documents), len(layers), int(model.config.num_experts))
    first, every = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    picked: dict[int, Tensor] = {}
    handles = [
        layer.mlp.experts.register_forward_pre_hook(_keep(picked, position))
        for position, layer in enumerate(layers.values())
    ]
    try:
        rows = [d.tokens for d in documents]
        for batch in batches(rows):
            tokens_BS = padded([rows[i] for i in batch])
            model.get_decoder()(input_ids=tokens_BS, use_cache=False)
            for position, picks in picked.items():
                picks_BSK = picks.reshape(*tokens_BS.shape, -1)
                for row, index in enumerate(batch):
                    used = picks_BSK[row, : len(rows[index])]
                    first[index, position] = np.bincount(used[:, 0], minlength=shape[2])
                    every[index, position] = np.bincount(used.flatten(), minlength=shape[2])
    finally:
        for handle in handles:
            handle.remove()
    return Routes(list(layers), [d.language for d in documents], first, every)


def _keep(picked: dict[int, Tensor], position: int) -> Callable[[nn.Module, Any], None]:
    """Make a hook that keeps the picks an experts module is called with."""

    def hook(_: nn.Module, args: Any) -> None:
        picked[position] = args[1].cpu()

    return hook
