"""Modules of another class for a while: subclasses made at run time, and empty shared experts set aside.

A shared expert of width 0 (Qwen2-MoE has one whether it is wanted or not) holds empty parameters,
which FSDP2 cannot shard. While attached it returns zeros and holds them as buffers of the same
names: the state dict, strict loading and saving do not see the difference.
"""

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_SUBCLASSES: dict[tuple[type, type], type] = {}


def subclass(mixin: type, stock: type) -> Any:
    """Make the subclass once per class; it keeps the stock name, which wrapping by name relies on."""
    made = _SUBCLASSES.get((mixin, stock))
    if made is None:
        made = type(stock.__name__, (mixin, stock), {"polyclinic_stock": stock})
        _SUBCLASSES[mixin, stock] = made
    return made


def _kept_forwards(module: nn.Module) -> list[str]:
    """Return the attributes that hold a module's own forward, which its class does not decide then.

    accelerate keeps one where it spreads a model over devices (`device_map`). Raises ValueError for
    a forward that is not the class's: what replaced it would never see the guidance.
    """
    own = type(module).forward
    names = [name for name in ("forward", "_old_forward") if getattr(vars(module).get(name), "__func__", None) is own]
    if "forward" in vars(module) and not names:
        what = f"the forward of a {type(module).__name__} has been replaced by another"
        raise ValueError(f"{what}: attach before that, and undo it before detaching")
    return names


def turn(module: nn.Module, into: type) -> None:
    """Give a module another class, forwards that it keeps included."""
    names = _kept_forwards(module)
    module.__class__ = into
    for name in names:
        vars(module)[name] = MethodType(into.forward, module)  # type: ignore[attr-defined]


def check_forwards(modules: Iterable[nn.Module]) -> None:
    """Raise ValueError for a module whose forward is not its class's, before any is given another class."""
    for module in modules:
        _kept_forwards(module)


class _EmptyExpert(nn.Module):
    """Mixin over a shared expert of width 0, whatever the dtype of what it is given."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return zeros, as an empty product is."""
        return torch.zeros_like(hidden_states)


def empty_linears(block: Any) -> list[nn.Module]:
    """Return the projections of a sparse block's shared expert if they hold nothing."""
    shared = getattr(block, "shared_expert", None)
    linears = [] if shared is None else [m for m in shared.modules() if isinstance(m, nn.Linear)]
    return [linear for linear in linears if linear.weight.numel() == 0]


def set_aside_empty(block: Any) -> None:
    """Hold the empty parameters of a sparse block as buffers, and let its shared expert return zeros."""
    empty = empty_linears(block)
    if empty:
        turn(block.shared_expert, subclass(_EmptyExpert, type(block.shared_expert)))
    for linear in empty:
        weight = linear._parameters.pop("weight")
        linear.register_buffer("weight", None if weight is None else weight.detach())
        vars(linear)["polyclinic_trained"] = weight is not None and weight.requires_grad


def bring_back_empty(block: Any) -> None:
    """Undo `set_aside_empty`."""
    empty = empty_linears(block)
    if empty:
        turn(block.shared_expert, block.shared_expert.polyclinic_stock)
    for linear in empty:
        kept: Any = linear._buffers.pop("weight")  # has followed the model to its device and dtype
        weight = nn.Parameter(kept, vars(linear).pop("polyclinic_trained"))
        linear._parameters = {"weight": weight, **linear._parameters}
