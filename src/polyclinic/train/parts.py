"""What trains: the whole mixture, its sparse blocks, its experts, its routers, or one family's expert.

All experts of a layer are rows of the same tensors. One expert alone is trained by letting no
gradient through to the other rows before the norm is taken, and by decaying its rows here: AdamW
would decay them all. A row without gradient and decay is left by AdamW exactly as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from polyclinic.moe.attach import sparse_layers
from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.shards import held


def trained(model: PreTrainedModel, trains: str) -> list[nn.Parameter]:
    """Return the parameters that train: `all`, `sparse` (blocks of experts), `experts` or `router`."""
    blocks = [layer.mlp for layer in sparse_layers(model).values()]
    parts = {
        "all": [model],
        "sparse": blocks,
        "experts": [block.experts for block in blocks],
        "router": [block.gate for block in blocks],
    }
    return [parameter for part in parts[trains] for parameter in part.parameters()]


@contextmanager
def only(
    model: PreTrainedModel, settings: MoeTrainingSection | None, expert: int | None = None
) -> Iterator["OneExpert | None"]:
    """Freeze what does not train while this holds; with an expert, what keeps the other experts still."""
    if settings is None:
        yield None
        return
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    chosen = {id(parameter) for parameter in trained(model, settings.trains)}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in chosen)
    try:
        yield None if expert is None else OneExpert(model, expert, settings.weight_decay)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


class OneExpert(TrainerCallback):
    """Keeps every row of the expert tensors but one expert's as it is, bit by bit.

    Parameters are looked up at each step: sharding puts others in their place.
    """

    def __init__(self, model: PreTrainedModel, expert: int, weight_decay: float) -> None:
        self._model, self._expert, self._weight_decay = model, expert, weight_decay

    def parameters(self) -> list[nn.Parameter]:
        """Return the tensors whose first dimension are the experts."""
        return trained(self._model, "experts")

    def mask(self) -> None:
        """Take the gradient from all rows but the expert's; before the norm of the gradients is taken."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                local, first = held(parameter.grad)
                local[: max(self._expert - first, 0)] = 0
                local[max(self._expert - first + 1, 0) :] = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Decay the expert's rows as AdamW does (arXiv 1711.05101): p times 1 - rate * weight decay."""
        rate = optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            for parameter in self.parameters():
                local, first = held(parameter)
                if 0 <= self._expert - first < len(local):
                    local[self._expert - first].mul_(1 - rate * self._weight_decay)
