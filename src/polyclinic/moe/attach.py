"""Bring family ids into a stock mixture, and take them out again without a trace.

The decoder layers that hold experts, and their routers, are given subclasses of their own class at
run time. `family_ids` travels as a keyword of the forward into each layer, so recomputation under
gradient checkpointing finds the very ids of its forward: transformers checkpoints a layer's
`forward` together with its keywords. Whether ids count (mode, training or not) is decided once,
when the decoder is called.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.router import UNKNOWN_FAMILY, HybridRouter


class Routing(StrEnum):
    """When a known family forces its expert."""

    TOPK = "topk"
    HYBRID_TRAINING = "hybrid-training"  # the paper: forced in training, free at inference
    HYBRID = "hybrid"


@dataclass
class _Switch:
    """The state of an attached model: its mode, the families of a `routing` block, the call hook."""

    mode: Routing
    families: tuple[int, ...] | None = None
    handle: Any = None


class _RoutedLayer(nn.Module):
    """Mixin over a decoder layer that hands `family_ids` to its router for one forward."""

    mlp: Any

    def forward(self, hidden_states: Tensor, *args: Any, family_ids: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the stock layer with the router knowing the ids; shapes: ids (batch, tokens)."""
        if family_ids is not None and family_ids.shape != hidden_states.shape[:2]:
            raise ValueError(f"family_ids {tuple(family_ids.shape)} for states {tuple(hidden_states.shape)}")
        self.mlp.gate.family_ids = family_ids
        try:
            return super().forward(hidden_states, *args, **kwargs)
        finally:
            self.mlp.gate.family_ids = None


_SUBCLASSES: dict[tuple[type, type], type] = {}


def _subclass(mixin: type, stock: type) -> Any:
    """Make the subclass once per class; it keeps the stock name, which wrapping by name relies on."""
    made = _SUBCLASSES.get((mixin, stock))
    if made is None:
        made = type(stock.__name__, (mixin, stock), {"polyclinic_stock": stock})
        _SUBCLASSES[mixin, stock] = made
    return made


def sparse_layers(model: PreTrainedModel) -> dict[int, Any]:
    """Return the decoder layers that hold experts, by index."""
    layers = model.get_decoder().layers
    return {i: layer for i, layer in enumerate(layers) if hasattr(layer.mlp, "experts")}


def is_attached(model: PreTrainedModel) -> bool:
    """Say whether the model takes family ids."""
    return hasattr(model, "polyclinic_switch")


def attach(model: PreTrainedModel, mode: Routing = Routing.HYBRID_TRAINING) -> None:
    """Let a stock mixture take `family_ids` (batch, tokens; -1 unknown) in its forward.

    Raises CheckpointError if the model has no experts, ValueError if it is attached already.
    """
    layers = sparse_layers(model)
    if not layers:
        raise CheckpointError(model.config.model_type, "has no experts", "give an upcycled checkpoint")
    if is_attached(model):
        raise ValueError("already attached")
    for layer in layers.values():
        layer.mlp.gate.__class__ = _subclass(HybridRouter, type(layer.mlp.gate))
        layer.__class__ = _subclass(_RoutedLayer, type(layer))
    switch = _Switch(Routing(mode))
    model.polyclinic_switch = switch
    # Not on the model: a wrapper may call the model's forward past its hooks, as older peft does.
    switch.handle = model.get_decoder().register_forward_pre_hook(partial(_resolve_ids, switch), with_kwargs=True)


def detach(model: PreTrainedModel) -> None:
    """Give every layer and router its stock class back."""
    for layer in sparse_layers(model).values():
        layer.mlp.gate.__class__ = layer.mlp.gate.polyclinic_stock
        vars(layer.mlp.gate).pop("family_ids", None)
        layer.__class__ = layer.polyclinic_stock
    switch: _Switch = model.polyclinic_switch
    switch.handle.remove()
    del model.polyclinic_switch


def _resolve_ids(
    switch: _Switch, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Decide at the call whether ids count, and fill them in from a `routing` block."""
    ids = kwargs.pop("family_ids", None)
    counts = switch.mode is Routing.HYBRID or (switch.mode is Routing.HYBRID_TRAINING and decoder.training)
    if counts and ids is None and switch.families is not None:
        given = (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        ids = _per_token(switch.families, next(tokens for tokens in given if tokens is not None))
    if counts and ids is not None:
        kwargs["family_ids"] = ids
    return args, kwargs


def _per_token(families: Sequence[int], tokens: Tensor) -> Tensor:
    """Spread one family a sequence over (batch, tokens); beams of a sequence lie side by side."""
    rows, length = tokens.shape[:2]
    if rows % len(families):
        raise ValueError(f"{len(families)} families for {rows} sequences")
    ids = torch.tensor(families, device=tokens.device).repeat_interleave(rows // len(families))
    return ids[:, None].expand(rows, length)


@contextmanager
def routing(
    model: PreTrainedModel, mode: Routing = Routing.HYBRID, families: Sequence[int] | None = None
) -> Iterator[None]:
    """Route with another mode, or with one family per sequence, inside the block.

    `families` reach every forward that gets no ids of its own, generation included.
    """
    num_experts = model.config.num_experts
    if families is not None and not (families and all(UNKNOWN_FAMILY <= f < num_experts for f in families)):
        raise ValueError(f"families {list(families)} for {num_experts} experts")
    switch: _Switch = model.polyclinic_switch
    before = (switch.mode, switch.families)
    switch.mode, switch.families = Routing(mode), None if families is None else tuple(families)
    try:
        yield
    finally:
        switch.mode, switch.families = before
