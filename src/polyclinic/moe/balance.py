"""Balance of the experts: two losses per layer, a bias that fades, and the loads themselves.

Shape letters: T tokens, E experts, K picks, L sparse layers, G groups of tokens (languages).

Every figure is taken over one layer. The stock loss pools the layers, so two layers of opposite
imbalance look balanced to it. Tokens that are not counted (padding) enter nothing.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyclinic.moe.watch import RouterWatch, over_processes


def load_balance_loss(probs_TE: Tensor, experts_TK: Tensor, counted_T: Tensor) -> Tensor:
    """Return E * sum over e of f_e * P_e, a scalar; 1 where picks or probabilities are uniform, E / K at most.

    f_e: share of the counted tokens' picks that went to expert e, without gradient; P_e: mean
    router probability of e over the counted tokens. Switch Transformers (arXiv 2101.03961),
    equations 4 to 6, with f over all K picks. No counted token: 0.
    """
    num_experts = probs_TE.shape[-1]
    counted_T1 = counted_T[:, None]
    count = counted_T.sum().clamp(min=1)
    picks_E = count_picks(experts_TK, counted_T1.expand_as(experts_TK), num_experts)
    share_E = picks_E.to(probs_TE.dtype) / (count * experts_TK.shape[-1])
    mean_E = torch.where(counted_T1, probs_TE, 0.0).sum(0) / count
    return num_experts * (share_E * mean_E).sum()


def z_loss(logits_TE: Tensor, counted_T: Tensor) -> Tensor:
    """Return the mean of logsumexp(logits)^2 over the counted tokens, a scalar in fp32.

    ST-MoE (arXiv 2202.08906), equation 5: keeps router logits small. No counted token: 0.
    """
    squares_T = logits_TE.float().logsumexp(-1).square()
    return torch.where(counted_T, squares_T, 0.0).sum() / counted_T.sum().clamp(min=1)


def next_bias(bias_LE: Tensor, loads_LE: Tensor, rate: float) -> Tensor:
    """Return the bias after one step: up by `rate` for an expert below its layer's mean load, down above.

    Auxiliary-loss-free balancing (arXiv 2408.15664), algorithm 1: b_e += rate * sign(mean - load_e).
    """
    loads_LE = loads_LE.to(bias_LE.dtype)
    return bias_LE + rate * torch.sign(loads_LE.mean(-1, keepdim=True) - loads_LE)


def grows(step: int, steps: int) -> bool:
    """Say whether the bias still learns after `step` steps of `steps`: in the first half."""
    return step < steps // 2


def remaining(step: int, steps: int) -> float:
    """Return the share of the bias that counts after `step` steps: 1 in the first half, 0 from 80 % on.

    No native form here stores a bias, so a checkpoint must not need one: it falls linearly to
    exactly 0, and the router learns the rest of the way without it.
    """
    first, last = steps // 2, 4 * steps // 5
    if step >= last:
        return 0.0
    return 1.0 if step < first else (last - step) / (last - first)


def count_picks(experts_TK: Tensor, carries_TK: Tensor, bins: int) -> Tensor:
    """Return how many of the picks that carry something fall on each of `bins`, as integers."""
    out = torch.zeros(bins, dtype=torch.long, device=experts_TK.device)
    return out.index_add_(0, experts_TK.flatten(), carries_TK.flatten().long())


class _AddLoss(torch.autograd.Function):
    """Hand a tensor through; in backward a scalar loss gets the gradient 1.

    After the auxiliary-loss auto-scaler of Megatron-Core (core/transformer/moe/moe_utils.py).
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (loss,) = ctx.saved_tensors
        return gradients[0], torch.ones_like(loss)


def add_loss(value: Tensor, loss: Tensor) -> Tensor:
    """Return `value`; whoever goes backward through it goes backward through `loss` too, once.

    So a loss joins training without leaving its layer, which is what recomputation needs. Its
    gradient is that of `loss` as it stands: a caller who scales the task loss scales this too.
    """
    return _AddLoss.apply(value, loss)  # type: ignore[no-any-return, no-untyped-call]


class Strengths(NamedTuple):
    """Coefficients of the losses of one layer."""

    load_balance: float = 0.0
    z_loss: float = 0.0


class Loads:
    """Counts of picks since the last take, per sparse layer, group of tokens and expert."""

    def __init__(self, num_groups: int = 1) -> None:
        self._num_groups = num_groups
        self._counts: dict[int, Tensor] = {}

    def add(self, position: int, experts_TK: Tensor, carries_TK: Tensor, group_T: Tensor | None, experts: int) -> None:
        """Count the picks of a layer, of `experts`, that carry something; no groups: all in group 0."""
        cells_TK = (
            experts_TK if group_T is None else experts_TK + experts * group_T.to(experts_TK).clamp(min=0)[:, None]
        )
        new_GE = count_picks(cells_TK, carries_TK, self._num_groups * experts).reshape(-1, experts)
        old_GE = self._counts.get(position)
        self._counts[position] = new_GE if old_GE is None else old_GE + new_GE

    def take(self) -> Tensor:
        """Return the counts (layers, groups, experts), of all processes together, and start again.

        Every process must have made a forward since the last take.
        """
        counts = [count for _, count in sorted(self._counts.items())]
        self._counts = {}
        if not counts:
            return torch.zeros(0, self._num_groups, 0, dtype=torch.long)
        total = torch.stack([count.to(counts[0].device) for count in counts])
        return over_processes(total).cpu()


class Recording:
    """Counting of one forward, shut at its end: recomputation must not count again."""

    def __init__(self, loads: Loads, group_T: Tensor | None = None, routers: RouterWatch | None = None) -> None:
        self.loads, self.group_T, self.routers, self.is_open = loads, group_T, routers, True

    def add(self, position: int, experts_TK: Tensor, carries_TK: Tensor, experts: int) -> None:
        """Count picks (tokens, picks) of a layer where `carries_TK`."""
        if self.is_open:
            self.loads.add(position, experts_TK, carries_TK, self.group_T, experts)

    def watch(self, position: int, logits_TE: Tensor, probs_TE: Tensor, counted_T: Tensor, top_k: int) -> None:
        """Note what a layer's router tells of itself."""
        if self.is_open and self.routers is not None:
            self.routers.add(position, logits_TE, probs_TE, counted_T, self.group_T, top_k)


@dataclass
class Balance:
    """What balances an attached model while it trains; losses are means over its sparse layers.

    The loss of the model becomes task loss + load_balance * mean of `load_balance_loss` + z_loss *
    mean of `z_loss`. `bias_LE` (sparse layers, experts) is added where experts are picked.
    """

    load_balance: float = 0.0
    z_loss: float = 0.0
    bias_LE: Tensor | None = None
    loads: Loads = field(default_factory=Loads)
    routers: RouterWatch = field(default_factory=RouterWatch)

    def of_one_layer(self, num_layers: int) -> Strengths | None:
        """Return the coefficients inside one of `num_layers` layers; None where both are 0."""
        if not self.load_balance and not self.z_loss:
            return None
        return Strengths(self.load_balance / num_layers, self.z_loss / num_layers)
