"""Adapters of low rank on a mixture: they alone train, and end as part of the weights they were put on.

The adapters are peft's. Experts and routers are parameters, not linear modules: peft adapts them by
name (`target_parameters`), each expert by matrices of its own. peft is imported only where a recipe
asks for adapters.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from polyclinic.recipe import LoraSection

FUSED = {"experts": ("mlp.experts.gate_up_proj", "mlp.experts.down_proj"), "router": ("mlp.gate.weight",)}


@contextmanager
def adapted(model: PreTrainedModel, section: LoraSection | None, seed: int) -> Iterator[Any]:
    """Yield what trains: the model, or the model with adapters, which are merged into it behind the block.

    A block that fails leaves the weights as they were.
    """
    if section is None:
        yield model
        return
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=linears(model, section.targets),
        target_parameters=[name for target in section.targets for name in FUSED.get(target, ())],
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no linear module is a target, which is meant
        wrapped = get_peft_model(model, config)
    try:
        yield wrapped
    except BaseException:
        wrapped.unload()
        raise
    wrapped.merge_and_unload(safe_merge=True)


def linears(model: nn.Module, targets: list[Any]) -> list[str]:
    """Return the full names of the linear modules that targets name."""
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return [name for name in linear if name.rpartition(".")[2] in targets]
