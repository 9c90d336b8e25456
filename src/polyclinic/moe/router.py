"""The router: which experts a token goes to, and with what weights.

Shape letters: T tokens, E experts, K picks, H hidden, L sparse layers.

Hybrid-k (Apollo-MoE, arXiv 2410.10626, section 3.2, and its code): p = softmax(W x) in fp32; take
the top K of p; where the family's expert is not among them it replaces the weakest pick; the
weights are p at the final picks, normalised to one if the model normalises. So the family's expert
is always picked, beside the best K-1 of the others.

Language-specific (the baseline of the same paper): the family's expert alone, with weight 1; the
router has no say and gets no gradient.

Family unknown (-1): the plain top K in both.
"""

import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyclinic.moe.balance import Recording, Strengths, add_loss, load_balance_loss, z_loss

UNKNOWN_FAMILY = -1


class Picks(NamedTuple):
    """Chosen experts of each token and their weights in fp32, strongest first; weight 0 carries nothing."""

    experts_TK: Tensor
    weights_TK: Tensor


def hybrid_picks(
    probs_TE: Tensor, family_T: Tensor | None, top_k: int, normalise: bool, bias_E: Tensor | None = None
) -> Picks:
    """Apply the hybrid-k rule; `family_T` None or -1 means plain top-k.

    A bias is added where experts are compared, never to a weight (arXiv 2408.15664, equation 3).
    """
    scores_TE = probs_TE if bias_E is None else probs_TE.detach() + bias_E.to(probs_TE)
    experts_TK = scores_TE.topk(top_k, dim=-1).indices
    if family_T is not None:
        family_T1 = family_T.reshape(-1, 1).to(experts_TK)
        absent_T1 = (family_T1 != UNKNOWN_FAMILY) & (experts_TK != family_T1).all(-1, keepdim=True)
        last_T1 = torch.where(absent_T1, family_T1, experts_TK[:, -1:])
        experts_TK = torch.cat([experts_TK[:, :-1], last_T1], dim=-1)
    weights_TK = probs_TE.gather(1, experts_TK)
    if normalise:
        weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
    return Picks(experts_TK, weights_TK)


def language_picks(probs_TE: Tensor, family_T: Tensor, top_k: int, normalise: bool) -> Picks:
    """Pick the family's expert alone, weight exactly 1; family -1 means plain top-k.

    The other picks repeat it with weight 0: whatever counts the calls of experts sees no other one.
    The index that stock experts skip (E) is not used: off expert parallelism only one of their
    implementations honours it (transformers 5.23, integrations/moe.py).
    """
    free = hybrid_picks(probs_TE, None, top_k, normalise)
    family_T1 = family_T.reshape(-1, 1).to(free.experts_TK)
    known_T1 = family_T1 != UNKNOWN_FAMILY
    experts_TK = torch.where(known_T1, family_T1, free.experts_TK)
    alone_TK = torch.zeros_like(probs_TE.detach().gather(1, experts_TK))  # gather refuses what is no expert
    alone_TK[:, 0] = 1.0
    return Picks(experts_TK, torch.where(known_T1, alone_TK, free.weights_TK))


class Guidance:
    """What one forward of the decoder tells all its routers; recomputation finds the same object.

    Not a tuple or dataclass: FSDP2's mixed precision looks into those, casts what it finds there
    and hands each layer a copy.
    """

    def __init__(
        self,
        family_T: Tensor | None = None,  # -1 unknown
        alone: bool = False,  # a known family's expert only
        counted_T: Tensor | None = None,  # tokens that enter losses and loads
        strengths: Strengths | None = None,  # of the balance losses
        bias_LE: Tensor | None = None,
        recording: Recording | None = None,
    ) -> None:
        self.family_T, self.alone, self.counted_T = family_T, alone, counted_T
        self.strengths, self.bias_LE, self.recording = strengths, bias_LE, recording


_NONE = Guidance()


class _Now(threading.local):
    """What guides the layer that a thread is in; threads that share a model must not meet here."""

    def __init__(self) -> None:
        self.guidance: Guidance | None = None


NOW = _Now()


class FamilyRouter(nn.Module):
    """Mixin over a stock top-k router: same parameter, same output, guided where guidance is given.

    The guidance is that of `NOW`, set by the decoder layer for the length of its forward (see `attach`).
    """

    top_k: int
    hidden_dim: int
    norm_topk_prob: bool
    weight: nn.Parameter
    position: int  # among the sparse layers

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return router logits, weights and picks in the order and dtypes of the stock router."""
        guidance = NOW.guidance or _NONE
        hidden_TH = hidden_states.reshape(-1, self.hidden_dim)
        logits_TE = F.linear(hidden_TH, self.weight)
        probs_TE = logits_TE.softmax(-1, dtype=torch.float)
        experts_TK, weights_TK = self._picks(probs_TE, guidance)
        if guidance.counted_T is not None:
            counted_T = guidance.counted_T.to(probs_TE.device)
            if guidance.strengths is not None:
                loss = guidance.strengths.load_balance * load_balance_loss(probs_TE, experts_TK, counted_T)
                loss = loss + guidance.strengths.z_loss * z_loss(logits_TE, counted_T)
                weights_TK = add_loss(weights_TK, loss)
            if guidance.recording is not None:
                carries_TK = (weights_TK > 0) & counted_T[:, None]
                guidance.recording.add(self.position, experts_TK, carries_TK, probs_TE.shape[-1])
                guidance.recording.watch(self.position, logits_TE, probs_TE, counted_T, self.top_k)
        return logits_TE, weights_TK.to(logits_TE.dtype), experts_TK

    def _picks(self, probs_TE: Tensor, guidance: Guidance) -> Picks:
        if guidance.alone and guidance.family_T is not None:
            return language_picks(probs_TE, guidance.family_T, self.top_k, self.norm_topk_prob)
        bias_E = None if guidance.bias_LE is None else guidance.bias_LE[self.position]
        return hybrid_picks(probs_TE, guidance.family_T, self.top_k, self.norm_topk_prob, bias_E)
