"""Hybrid-k: the expert of the token's family is always among the picks, the rest is free.

Shape letters: T tokens, E experts, K picks, H hidden.

Rule (Apollo-MoE, arXiv 2410.10626, section 3.2, and its code): p = softmax(W x) in fp32; take the
top K of p; where the family's expert is not among them it replaces the weakest pick; the weights
are p at the final picks, normalised to one if the model normalises. Family unknown (-1): the plain
top K.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN_FAMILY = -1


class Picks(NamedTuple):
    """Chosen experts of each token and their weights, strongest first."""

    experts_TK: Tensor
    weights_TK: Tensor


def hybrid_picks(probs_TE: Tensor, family_T: Tensor | None, top_k: int, normalise: bool) -> Picks:
    """Apply the hybrid-k rule; `family_T` None or -1 means plain top-k."""
    experts_TK = probs_TE.topk(top_k, dim=-1).indices
    if family_T is not None:
        family_T1 = family_T.reshape(-1, 1).to(experts_TK.dtype)
        absent_T1 = (family_T1 != UNKNOWN_FAMILY) & (experts_TK != family_T1).all(-1, keepdim=True)
        last_T1 = torch.where(absent_T1, family_T1, experts_TK[:, -1:])
        experts_TK = torch.cat([experts_TK[:, :-1], last_T1], dim=-1)
    weights_TK = probs_TE.gather(1, experts_TK)
    if normalise:
        weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
    return Picks(experts_TK, weights_TK)


class HybridRouter(nn.Module):
    """Mixin over a stock top-k router: same parameter, same output, family ids where they are given.

    `family_ids` is set by the decoder layer for the length of one forward (see `attach`).
    """

    top_k: int
    hidden_dim: int
    norm_topk_prob: bool
    weight: nn.Parameter
    family_ids: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return router logits, weights and picks in the order and dtypes of the stock router."""
        hidden_TH = hidden_states.reshape(-1, self.hidden_dim)
        logits_TE = F.linear(hidden_TH, self.weight)
        probs_TE = logits_TE.softmax(-1, dtype=torch.float)
        family_T = None if self.family_ids is None else self.family_ids.reshape(-1)
        picks = hybrid_picks(probs_TE, family_T, self.top_k, self.norm_topk_prob)
        return logits_TE, picks.weights_TK.to(logits_TE.dtype), picks.experts_TK
