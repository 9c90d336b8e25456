"""Take experts out of the routing of a mixture for a while, without touching a weight.

A hook on each router changes what it hands to its experts, and only for tokens that picked an
absent expert; all others keep their picks and weights to the last bit. Two ways:

- `next`: the best of the other experts takes the place. Scores are the router's own, experts are
  compared as it compares them (bias and groups included), and the weights of the new picks are
  their scores, scaled so that they sum to what the old weights summed to.
- `zero`: the absent expert's weight becomes 0 and nothing takes its place.

Shape letters: T tokens, E experts, K picks, G groups of experts.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError

How = Literal["next", "zero"]
FAR = 1e4  # behind every expert of the router's groups, before the absent ones
NEAR = 1e-4  # between a router's weights and ours computed from its logits


class Scores(NamedTuple):
    """What a router thinks of each expert of each token: the score that weighs it, and that picks it."""

    weigh_TE: Tensor
    pick_TE: Tensor


def routers(model: PreTrainedModel) -> dict[int, nn.Module]:
    """Return the router of each decoder layer that holds experts, by index of the layer.

    Raises CheckpointError if no layer holds experts.
    """
    out = {}
    for index, layer in enumerate(model.get_decoder().layers):
        for block in layer.modules():
            router = getattr(block, "gate", None) or getattr(block, "router", None)
            if hasattr(block, "experts") and isinstance(router, nn.Module):
                out[index] = router
    if not out:
        raise CheckpointError(model.config.model_type, "is not a mixture: no layer holds experts", "give a mixture")
    return out


def scores(router: nn.Module, logits_TE: Tensor) -> Scores:
    """Return a router's scores from its logits: softmax, or sigmoid where it keeps a bias (arXiv 2412.19437, 2.1.2)."""
    bias_E: Any = getattr(router, "e_score_correction_bias", None)
    if bias_E is None:
        weigh_TE = logits_TE.float().softmax(-1)
        return Scores(weigh_TE, weigh_TE)
    weigh_TE = logits_TE.float().sigmoid()
    pick_TE = weigh_TE + bias_E
    groups = int(getattr(router, "num_group", None) or 1)
    if groups > 1:
        best_TG = pick_TE.unflatten(1, (groups, -1)).topk(2, dim=-1).values.sum(-1)
        open_TG = torch.zeros_like(best_TG).scatter(1, best_TG.topk(int(router.topk_group), dim=-1).indices, 1.0)  # type: ignore[arg-type]
        pick_TE = pick_TE - FAR * (1 - open_TG.repeat_interleave(pick_TE.shape[1] // groups, dim=1))
    return Scores(weigh_TE, pick_TE)


def follows(router: nn.Module, logits_TE: Tensor, weights_TK: Tensor, picks_TK: Tensor) -> bool:
    """Say whether a router picked and weighed as `scores` says; else the next best is not known."""
    weigh_TE, pick_TE = scores(router, logits_TE)
    worst_T = pick_TE.gather(1, picks_TK).amin(-1)
    rest_T = pick_TE.scatter(1, picks_TK, -torch.inf).amax(-1)
    ours_TK, theirs_TK = (w / w.sum(-1, keepdim=True) for w in (weigh_TE.gather(1, picks_TK), weights_TK.float()))
    return bool((worst_T >= rest_T - NEAR).all()) and torch.allclose(ours_TK, theirs_TK, atol=1e-2)


@contextmanager
def without(model: PreTrainedModel, absent: Mapping[int, Collection[int]], how: How = "next") -> Iterator[None]:
    """Route without the experts named by layer, inside the block; one expert a layer must remain."""
    found = routers(model)
    handles = [
        found[layer].register_forward_hook(partial(_reroute, frozenset(experts), how))
        for layer, experts in absent.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reroute(
    absent: frozenset[int], how: How, router: nn.Module, _: Any, output: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor] | None:
    logits_TE, weights_TK, picks_TK = output
    absent_E = torch.zeros(logits_TE.shape[-1], dtype=torch.bool)
    absent_E[list(absent)] = True
    gone_TK = absent_E.to(picks_TK.device)[picks_TK]
    hit_T = gone_TK.any(-1)
    if not hit_T.any():
        return None
    if how == "zero":
        return logits_TE, weights_TK.masked_fill(gone_TK, 0), picks_TK
    weights_TK, picks_TK = weights_TK.clone(), picks_TK.clone()
    weights_TK[hit_T], picks_TK[hit_T] = _next_best(router, logits_TE[hit_T], weights_TK[hit_T], absent_E)
    return logits_TE, weights_TK, picks_TK


def _next_best(router: nn.Module, logits_TE: Tensor, weights_TK: Tensor, absent_E: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and picks without the absent experts; where fewer than K remain, picks of weight 0 fill up."""
    absent_E = absent_E.to(logits_TE.device)
    weigh_TE, pick_TE = scores(router, logits_TE)
    picks_TK = pick_TE.masked_fill(absent_E, -torch.inf).topk(weights_TK.shape[1], dim=-1).indices
    tiny = torch.finfo(torch.float32).tiny  # a score may have underflowed, and one must carry the token
    new_TK = weigh_TE.gather(1, picks_TK).clamp_min(tiny).masked_fill(absent_E[picks_TK], 0.0)
    total_T1 = weights_TK.float().sum(-1, keepdim=True)
    return (new_TK * (total_T1 / new_TK.sum(-1, keepdim=True))).to(weights_TK.dtype), picks_TK
