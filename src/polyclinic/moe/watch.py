"""What the routers of a forward tell of themselves: how decided they are, and whom they would pick.

Shape letters: T tokens, E experts, G groups of tokens (languages). Everything is taken without
gradient, over one layer, and over the tokens that are counted; padding never enters.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

UNKNOWN = -1  # the expert of a group that has none


def over_processes(value: Tensor, largest: bool = False) -> Tensor:
    """Return the sum of a tensor over all processes, or the largest; alone, the tensor itself.

    Every process must come here equally often.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    # NCCL speaks to GPUs alone.
    total = value.cuda() if dist.get_backend() == "nccl" else value.clone()
    dist.all_reduce(total, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return total.to(value.device)


class RouterFigures(NamedTuple):
    """Means over the counted tokens of one layer."""

    entropy: float  # nats
    z: float  # logsumexp(logits)^2
    own: dict[int, float]  # expert of a family -> share of the family's tokens that would pick it unforced


class RouterWatch:
    """Sums of what the routers tell since the last take, per sparse layer.

    `expert_of` names the expert of each group's family; without it nobody's own expert is known.
    """

    def __init__(self, expert_of: list[int] | None = None) -> None:
        self._expert_of = expert_of or []
        self._sums: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def add(
        self, position: int, logits_TE: Tensor, probs_TE: Tensor, counted_T: Tensor, group_T: Tensor | None, top_k: int
    ) -> None:
        """Add the router logits and the free probabilities of a layer's tokens."""
        entropy_T = torch.special.entr(probs_TE).sum(-1)
        squares_T = logits_TE.float().logsumexp(-1).square()
        values_T3 = torch.stack([entropy_T, squares_T, torch.ones_like(entropy_T)], -1).double()
        sums_3 = torch.where(counted_T[:, None], values_T3, 0.0).sum(0)
        own_E2 = self._own(probs_TE, counted_T, group_T, top_k)
        old = self._sums.get(position)
        self._sums[position] = (sums_3, own_E2) if old is None else (old[0] + sums_3, old[1] + own_E2)

    def _own(self, probs_TE: Tensor, counted_T: Tensor, group_T: Tensor | None, top_k: int) -> Tensor:
        """Return per expert (experts, 2) the tokens of its families, and those among them that would pick it."""
        sums_E2 = torch.zeros(probs_TE.shape[-1], 2, dtype=torch.long, device=probs_TE.device)
        if group_T is None or not self._expert_of:
            return sums_E2
        expert_G = torch.tensor(self._expert_of, device=probs_TE.device)
        expert_T = torch.where(group_T >= 0, expert_G[group_T.to(expert_G).clamp(min=0)], UNKNOWN)
        known_T = counted_T & (expert_T != UNKNOWN)
        found_T = (probs_TE.topk(top_k, dim=-1).indices == expert_T[:, None]).any(-1)
        return sums_E2.index_add_(0, expert_T.clamp(min=0), torch.stack([known_T, known_T & found_T], -1).long())

    def take(self) -> list[RouterFigures]:
        """Return the figures of each sparse layer in order, of all processes together, and start again."""
        sums = [pair for _, pair in sorted(self._sums.items())]
        self._sums = {}
        if not sums:
            return []
        means_L3 = over_processes(torch.stack([pair[0].to(sums[0][0].device) for pair in sums])).cpu()
        own_LE2 = over_processes(torch.stack([pair[1].to(sums[0][1].device) for pair in sums])).cpu()
        out = []
        for (entropy, z, count), own_E2 in zip(means_L3.tolist(), own_LE2.tolist(), strict=True):
            own = {expert: found / tokens for expert, (tokens, found) in enumerate(own_E2) if tokens}
            out.append(RouterFigures(entropy / max(count, 1), z / max(count, 1), own))
        return out
