"""Bring family ids into a stock mixture, and take them out again without a trace.

The decoder layers that hold experts, and their routers, are given subclasses of their own class at
run time. What a forward is to do is decided once, when the decoder is called, and travels as a
keyword of the forward into each layer, so recomputation under gradient checkpointing finds the very
ids of its forward: transformers checkpoints a layer's `forward` together with its keywords.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.balance import Balance, Recording
from polyclinic.moe.reclass import bring_back_empty, check_forwards, empty_linears, set_aside_empty, subclass, turn
from polyclinic.moe.router import NOW, UNKNOWN_FAMILY, FamilyRouter, Guidance

GUIDANCE = "guidance"  # the keyword that layers get
PER_TOKEN = ("family_ids", "counted", "group_ids")  # the keywords that callers give


class Routing(StrEnum):
    """What a known family does to the picks of its tokens."""

    TOPK = "topk"
    HYBRID_TRAINING = "hybrid-training"  # the paper: forced in training, free at inference
    HYBRID = "hybrid"
    LANGUAGE_TRAINING = "language-training"  # the paper's baseline: alone in training, untrained router at inference
    LANGUAGE = "language"  # the same, repaired: alone always


ALONE = (Routing.LANGUAGE_TRAINING, Routing.LANGUAGE)
ALWAYS = (Routing.HYBRID, Routing.LANGUAGE)


@dataclass
class _Switch:
    """The state of an attached model: its mode, the families of a `routing` block, its call hooks."""

    mode: Routing
    balance: Balance | None
    num_layers: int  # that hold experts
    families: Tensor | None = None  # one per sequence; a tensor, or a compiled model is compiled for each new one
    rows_per_family: int = 1
    holder: int | None = None  # the thread that is inside a `routing` block
    handles: list[Any] = field(default_factory=list)

    def forces(self, training: bool) -> bool:
        """Say whether family ids count."""
        return self.mode in ALWAYS or (training and self.mode is not Routing.TOPK)


class _RoutedLayer(nn.Module):
    """Mixin over a decoder layer that hands its guidance to its router for one forward."""

    mlp: Any

    def forward(self, hidden_states: Tensor, *args: Any, guidance: Guidance | None = None, **kwargs: Any) -> Any:
        """Run the stock layer with the router knowing the guidance."""
        before, NOW.guidance = NOW.guidance, guidance
        try:
            return super().forward(hidden_states, *args, **kwargs)
        finally:
            NOW.guidance = before


def sparse_layers(model: PreTrainedModel) -> dict[int, Any]:
    """Return the decoder layers that hold experts, by index."""
    layers = model.get_decoder().layers
    return {i: layer for i, layer in enumerate(layers) if hasattr(layer.mlp, "experts")}


def routers_of(layer: Any) -> list[Any]:
    """Return the routers of a sparse layer; an adapter may have wrapped its router, or keep two."""
    return [module for module in layer.mlp.gate.modules() if "top_k" in vars(module)]


def is_attached(model: PreTrainedModel) -> bool:
    """Say whether the model takes family ids."""
    return hasattr(model.get_decoder(), "polyclinic_switch")


def _turned(layers: Collection[Any]) -> list[Any]:
    """Return the modules that attaching gives another class."""
    empty = [layer.mlp.shared_expert for layer in layers if empty_linears(layer.mlp)]
    return [*layers, *(router for layer in layers for router in routers_of(layer)), *empty]


def attach(model: PreTrainedModel, mode: Routing = Routing.HYBRID_TRAINING, balance: Balance | None = None) -> None:
    """Let a stock mixture take more per token in its forward, each of shape (batch, tokens).

    `family_ids`: expert of the token's family, -1 unknown. `counted`: tokens that enter losses and
    loads; without it those of a 2-D attention mask, else all. `group_ids`: the group a token's
    picks are counted under, -1 none. The last two matter in training under a `balance`.
    Attach before sharding (FSDP2); before or after wrapping by peft.

    Raises CheckpointError if the model has no experts, ValueError if it is attached already or if
    a wrapper has put a forward of its own into a layer or router.
    """
    layers = sparse_layers(model)
    if not layers:
        raise CheckpointError(model.config.model_type, "has no experts", "give an upcycled checkpoint")
    if is_attached(model):
        raise ValueError("already attached")
    check_forwards(_turned(layers.values()))
    for position, layer in enumerate(layers.values()):
        for router in routers_of(layer):
            turn(router, subclass(FamilyRouter, type(router)))
            router.position = position
        turn(layer, subclass(_RoutedLayer, type(layer)))
        set_aside_empty(layer.mlp)
    switch = _Switch(Routing(mode), balance, len(layers))
    # On the decoder: a wrapper may call the model's forward past its hooks, as older peft does.
    decoder = model.get_decoder()
    decoder.polyclinic_switch = switch
    switch.handles.append(decoder.register_forward_pre_hook(partial(_guide, switch), with_kwargs=True))
    switch.handles.append(decoder.register_forward_hook(_shut, with_kwargs=True))


def detach(model: PreTrainedModel) -> None:
    """Give every layer and router its stock class back.

    Raises ValueError for layers that were sharded or wrapped since: gather and reload instead.
    """
    decoder, layers = model.get_decoder(), sparse_layers(model).values()
    if any("polyclinic_stock" not in vars(type(layer)) for layer in layers):
        raise ValueError("sharded after attaching: save the full state dict and load it as a stock model")
    check_forwards(_turned(layers))
    for layer in layers:
        for router in routers_of(layer):
            turn(router, router.polyclinic_stock)
            del router.position
        turn(layer, layer.polyclinic_stock)
        bring_back_empty(layer.mlp)
    switch: _Switch = decoder.polyclinic_switch
    for handle in switch.handles:
        handle.remove()
    del decoder.polyclinic_switch


def _guide(
    switch: _Switch, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Decide at the call what the routers are to do, from the mode, the call and the `routing` block."""
    ids, counted, groups = (kwargs.pop(name, None) for name in PER_TOKEN)
    balance = switch.balance if decoder.training else None
    given = (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
    tokens = next(tokens for tokens in given if tokens is not None)
    if not switch.forces(decoder.training):
        ids = None
    elif ids is None and switch.families is not None:
        ids = _per_token(switch.families, switch.rows_per_family, tokens)
    if ids is None and balance is None:
        return args, kwargs
    for name, value in zip(PER_TOKEN, (ids, counted, groups), strict=True):
        if value is not None and value.shape != tokens.shape[:2]:
            raise ValueError(f"{name} {tuple(value.shape)} for tokens {tuple(tokens.shape[:2])}")
    family_T, alone = None if ids is None else ids.flatten(), switch.mode in ALONE
    if balance is None:
        return args, {**kwargs, GUIDANCE: Guidance(family_T, alone)}
    mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    counted_T = _counted(tokens, counted, groups, mask).flatten()
    strengths, bias_LE = balance.of_one_layer(switch.num_layers), balance.bias_LE
    bias_LE = None if bias_LE is None else bias_LE.to(tokens.device)
    recording = Recording(balance.loads, None if groups is None else groups.flatten(), balance.routers)
    return args, {**kwargs, GUIDANCE: Guidance(family_T, alone, counted_T, strengths, bias_LE, recording)}


def _counted(tokens: Tensor, counted: Tensor | None, groups: Tensor | None, mask: Any) -> Tensor:
    """Return which tokens (batch, tokens) enter losses and loads."""
    rows, length = tokens.shape[:2]
    out = torch.ones(rows, length, dtype=torch.bool, device=tokens.device)
    if counted is not None:
        out = counted.bool()
    elif isinstance(mask, Tensor) and mask.ndim == len((rows, length)):
        out = mask[:, -length:].bool()
    return out if groups is None else out & (groups >= 0)


def _shut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """End the counting of a forward."""
    guidance: Guidance | None = kwargs.get(GUIDANCE)
    if guidance is not None and guidance.recording is not None:
        guidance.recording.is_open = False


def _per_token(families: Tensor, rows_per_family: int, tokens: Tensor) -> Tensor:
    """Spread one family a sequence over (batch, tokens); rows of a sequence lie side by side."""
    rows, length = tokens.shape[:2]
    if rows != len(families) * rows_per_family:
        what = f"{len(families)} families with rows_per_family={rows_per_family} for {rows} sequences"
        raise ValueError(f"{what}; beams or num_return_sequences make more than one row per family")
    ids = families.to(tokens.device).repeat_interleave(rows_per_family)
    return ids[:, None].expand(rows, length)


@contextmanager
def routing(
    model: PreTrainedModel,
    mode: Routing = Routing.HYBRID,
    families: Sequence[int] | None = None,
    rows_per_family: int = 1,
) -> Iterator[None]:
    """Route with another mode, or with one family per sequence, inside the block.

    `families` reach every forward that gets no ids of its own, generation included; there
    `rows_per_family` is num_beams, or num_return_sequences when sampling. The block holds for the
    model, whatever thread calls it; one thread at a time may have one.
    """
    num_experts = model.config.num_experts
    if families is not None and not (families and all(UNKNOWN_FAMILY <= f < num_experts for f in families)):
        raise ValueError(f"families {list(families)} for {num_experts} experts")
    switch: _Switch = model.get_decoder().polyclinic_switch
    if switch.holder not in (None, threading.get_ident()):
        raise ValueError("another thread is inside a routing block of this model")
    before = (switch.mode, switch.families, switch.rows_per_family, switch.holder)
    switch.mode, switch.rows_per_family, switch.holder = Routing(mode), rows_per_family, threading.get_ident()
    switch.families = None if families is None else torch.tensor(families)
    try:
        yield
    finally:
        switch.mode, switch.families, switch.rows_per_family, switch.holder = before
