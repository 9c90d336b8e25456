"""Picks and weights of a mixture, read where its experts module is called.

Hooks sit on the experts modules and see what they are called with, whatever made the picks: forced
families and correction biases are in them, which router logits alone do not show. The router's own
scores, for margin and entropy, come from the module beside the experts that has a row of weights
per expert.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError

# What experts modules of transformers 5.23 call the picks and their weights.
CALLED_WITH = (("top_k_index", "top_k_weights"), ("router_indices", "routing_weights"))
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
TOLERANCE = 0.02  # between a weight and the score it came from, up to the token's common factor


class Place(NamedTuple):
    """Where a decoder layer calls its experts."""

    layer: int
    experts: nn.Module
    router: nn.Module | None
    names: tuple[str, str]  # of the two arguments


class Call(NamedTuple):
    """What one layer's experts were called with, one row a token."""

    picks_TK: Tensor
    weights_TK: Tensor
    probs_TE: Tensor | None  # the router's scores before picking, each row summing to 1


def places(model: PreTrainedModel) -> list[Place]:
    """Return the layers with experts that are called with picks, in order.

    Raises CheckpointError for a model that has none, or layers of unlike numbers of experts.
    """
    found = [place for name, module in model.named_modules() if (place := _place(model, name, module))]
    kind = model.name_or_path or model.config.model_type
    if not found:
        raise CheckpointError(
            kind, "is not a mixture: nothing in it is called with picks of experts", "give one that is"
        )
    if len({_count(place.experts) for place in found}) > 1:
        raise CheckpointError(kind, "its layers hold unlike numbers of experts", "give a mixture with as many in each")
    return found


def num_experts(model: PreTrainedModel) -> int:
    """Return how many experts each sparse layer has."""
    return _count(places(model)[0].experts)


def _count(experts: Any) -> int:
    return int(experts.num_experts)


def _place(model: nn.Module, name: str, module: nn.Module) -> Place | None:
    parameters = inspect.signature(type(module).forward).parameters
    names = next((pair for pair in CALLED_WITH if set(pair) <= set(parameters)), None)
    number = LAYER.search(f"{name}.")
    if names is None or number is None or not hasattr(module, "num_experts"):
        return None
    beside = model.get_submodule(name.rpartition(".")[0]).children()
    return Place(int(number[1]), module, next((m for m in beside if _scores_experts(m, module)), None), names)


def _scores_experts(module: nn.Module, experts: nn.Module) -> bool:
    """Say whether a module beside the experts has one row of weights for each of them."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == len(("experts", "hidden")) and len(weight) == _count(experts)


@contextmanager
def watching(model: PreTrainedModel, see: Callable[[int, Call], None]) -> Iterator[None]:
    """Call `see(position among the sparse layers, call)` each time experts are called inside the block."""
    handles = []
    for position, place in enumerate(places(model)):
        reader = _Reader(place, position, see)
        if place.router is not None:
            handles.append(place.router.register_forward_hook(reader.scored))
        handles.append(place.experts.register_forward_pre_hook(reader.called, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Reader:
    """The hooks of one layer."""

    def __init__(self, place: Place, position: int, see: Callable[[int, Call], None]) -> None:
        self._place, self._position, self._see = place, position, see
        self._order = list(inspect.signature(type(place.experts).forward).parameters)[1:]
        self._logits: Tensor | None = None
        self._scale: Callable[[Tensor], Tensor] | None = None
        self._is_known = False

    def scored(self, _: nn.Module, __: Any, output: Any) -> None:
        """Keep the logits until the experts are called."""
        self._logits = output[0] if isinstance(output, tuple) else output

    def called(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hand over what the experts are called with."""
        given = dict(zip(self._order, args, strict=False)) | kwargs
        picks, weights = (given[name].detach() for name in self._place.names)
        logits, self._logits = self._logits, None
        picks_TK, weights_TK = picks.reshape(-1, picks.shape[-1]), weights.reshape(-1, weights.shape[-1])
        self._see(self._position, Call(picks_TK, weights_TK, self._probabilities(logits, picks_TK, weights_TK)))

    def _probabilities(self, logits: Tensor | None, picks_TK: Tensor, weights_TK: Tensor) -> Tensor | None:
        if logits is None or logits.shape[-1] != _count(self._place.experts):
            return None
        logits_TE = logits.detach().reshape(-1, logits.shape[-1]).float()
        if not self._is_known:
            biased = hasattr(self._place.router, "e_score_correction_bias")
            self._scale, self._is_known = scale_of(logits_TE, picks_TK, weights_TK, biased), True
        return None if self._scale is None else self._scale(logits_TE)


def softmax(logits_TE: Tensor) -> Tensor:
    """Return scores of a router that compares experts with each other."""
    return logits_TE.softmax(-1)


def sigmoid(logits_TE: Tensor) -> Tensor:
    """Return scores of a router that judges each expert alone (DeepSeek-V3), made to sum to 1."""
    scores_TE = logits_TE.sigmoid()
    return scores_TE / scores_TE.sum(-1, keepdim=True)


def scale_of(
    logits_TE: Tensor, picks_TK: Tensor, weights_TK: Tensor, biased: bool
) -> Callable[[Tensor], Tensor] | None:
    """Return the function of the logits that the weights of the picks were made with; None for neither.

    Weights may be normalised or scaled by the model, so only their ratios within a token are
    compared. `biased` breaks a tie: routers with a correction bias use the sigmoid.
    """
    best, found = TOLERANCE, None
    for scale in (sigmoid, softmax) if biased else (softmax, sigmoid):
        ratio_TK = weights_TK.float() / scale(logits_TE).gather(1, picks_TK)
        off = float((ratio_TK.amax(1) / ratio_TK.amin(1) - 1).median())
        if off < best * (1 if found is None else 0.5):  # twice as near, not by rounding alone
            best, found = off, scale
    return found


def heaviest(call: Call, num: int) -> Tensor:
    """Return the expert of each token's heaviest pick; of equal ones, the lowest."""
    top_T1 = call.weights_TK.amax(-1, keepdim=True)
    return torch.where(call.weights_TK == top_T1, call.picks_TK, num).amin(-1)
