"""Proof that a mixture equals its dense parent, and that its routing mixes what it should.

Two proofs, since each is blind to what the other sees. Same logits: with identical experts and
normalised weights the mixture must equal the parent whatever the router says. Perturbed apart:
identical experts hide every fault of routing and expert order, so each sparse block with experts
moved apart is compared with an independent plain loop over tokens and picks.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyclinic.errors import ProofError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.checkpoint import load_model

BOUND = 2e-6  # relative to the largest |logit|, fp32
SHAPE = (2, 48)  # sequences, tokens


@torch.no_grad()
def verify(dense_folder: Path, moe_folder: Path, seed: int) -> dict[str, float]:
    """Run both proofs in fp32 and return their figures; raises ProofError where one fails."""
    dense, moe = load_model(dense_folder).eval(), load_model(moe_folder).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(dense.config.vocab_size, SHAPE, generator=generator)
    facts = compare_logits(dense, moe, tokens)
    if facts["difference"] > BOUND * facts["largest_logit"]:
        layer = first_difference(dense, moe, tokens)
        what = f"logits differ from the parent by {facts['difference']:.2e}, first at layer {layer}"
        raise ProofError(moe_folder, f"{what}; the bound is {BOUND:g} x {facts['largest_logit']:.2f}", "report this")
    facts |= compare_mixture(moe, tokens, generator)
    if facts["mixture_difference"] > BOUND * facts["largest_output"]:
        what = f"a sparse block differs from the plain loop by {facts['mixture_difference']:.2e}"
        raise ProofError(moe_folder, what, "report this")
    return facts


def compare_logits(dense: nn.Module, moe: nn.Module, tokens: Tensor) -> dict[str, float]:
    """Return the largest logit difference, and the dense model's own between batch sizes."""
    expected, got = dense(tokens).logits, moe(tokens).logits
    alone = dense(tokens[:1]).logits
    return {
        "difference": (expected - got).abs().max().item(),
        "largest_logit": expected.abs().max().item(),
        "dense_batch_difference": (expected[:1] - alone).abs().max().item(),
    }


def first_difference(dense: Any, moe: Any, tokens: Tensor) -> int:
    """Return the first decoder layer whose output states differ beyond the bound."""
    ours = moe(tokens, output_hidden_states=True).hidden_states[1:]
    theirs = dense(tokens, output_hidden_states=True).hidden_states[1:]
    for index, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if (a - b).abs().max() > BOUND * a.abs().max():
            return index
    return len(ours)


def compare_mixture(moe: Any, tokens: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Move the experts apart in place and compare each sparse block with `plain_mixture`."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    handles = []
    for index, layer in sparse_layers(moe).items():
        for weight in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            weight.add_(0.5 * weight.std() * torch.randn(weight.shape, generator=generator))

        def keep(_: nn.Module, args: tuple[Tensor, ...], out: Tensor, index: int = index) -> None:
            seen[index] = (args[0].flatten(0, 1), out.flatten(0, 1))

        handles.append(layer.mlp.register_forward_hook(keep))
    moe(tokens)
    for handle in handles:
        handle.remove()
    worst = largest = 0.0
    for index, layer in sparse_layers(moe).items():
        states, out = seen[index]
        expected = plain_mixture(layer.mlp, states, moe.config.num_experts_per_tok, moe.config.norm_topk_prob)
        worst = max(worst, (expected - out).abs().max().item())
        largest = max(largest, expected.abs().max().item())
    return {"mixture_difference": worst, "largest_output": largest}


def plain_mixture(block: Any, states_TH: Tensor, top_k: int, normalise: bool) -> Tensor:
    """Compute the mixture one token and one pick at a time, from the weights alone."""
    out = torch.zeros_like(states_TH)
    for token, state_H in enumerate(states_TH):
        probs = torch.exp(block.gate.weight.float() @ state_H.float())
        probs = probs / probs.sum()
        picks = sorted(range(len(probs)), key=lambda e: -probs[e].item())[:top_k]
        total = sum(probs[e].item() for e in picks) if normalise else 1.0
        for e in picks:
            gate_H, up_H = (block.experts.gate_up_proj[e] @ state_H).chunk(2)
            out[token] += probs[e].item() / total * (block.experts.down_proj[e] @ (F.silu(gate_H) * up_H))
    return out
