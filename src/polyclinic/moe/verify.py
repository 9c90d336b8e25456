"""Proof that a mixture equals its dense parent, and that its routing mixes what it should.

Three proofs, since each is blind to what the others see. Same logits: with identical experts and
normalised weights the mixture must equal the parent whatever the router says. Same tensors: a few
tokens visit neither every row of the vocabulary nor every expert, so each tensor must be its
parent's bit for bit. Perturbed apart: identical experts hide every fault of routing and expert
order, so each sparse block with experts moved apart is compared with an independent plain loop
over tokens and picks.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyclinic.errors import CheckpointError, ProofError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.blueprint import SIZES
from polyclinic.moe.checkpoint import load_model

BOUND = 2e-6  # relative to the largest |logit|, fp32
SHAPE = (2, 48)  # sequences, tokens


@torch.no_grad()
def verify(dense_folder: Path, moe_folder: Path, seed: int) -> dict[str, float]:
    """Run the proofs in fp32 and return their figures; raises ProofError where one fails."""
    dense, moe = load_model(dense_folder).eval(), load_model(moe_folder).eval()
    if sparse_layers(dense) or not sparse_layers(moe):
        raise CheckpointError(moe_folder, "not a mixture beside a dense parent", "give the dense folder first")
    for key in SIZES:
        if getattr(dense.config, key) != getattr(moe.config, key):
            raise ProofError(moe_folder, f"{key} is not that of {dense_folder}", "give its own parent")
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(dense.config.vocab_size, SHAPE, generator=generator)
    facts = compare_logits(dense, moe, tokens)
    if not _within(facts["difference"], facts["largest_logit"]):
        layer = first_difference(dense, moe, tokens)
        what = f"logits differ from the parent by {facts['difference']:.2e}, first at layer {layer}"
        raise ProofError(moe_folder, f"{what}; the bound is {BOUND:g} x {facts['largest_logit']:.2f}", "report this")
    strange = first_strange(dense, moe)
    if strange is not None:
        raise ProofError(moe_folder, f"{strange} is no copy of the parent's", "report this")
    facts |= compare_mixture(moe, tokens, generator)
    if not _within(facts["mixture_difference"], facts["largest_output"]):
        what = f"a sparse block differs from the plain loop by {facts['mixture_difference']:.2e}"
        raise ProofError(moe_folder, what, "report this")
    return facts


def _within(difference: float, size: float) -> bool:
    """Say whether a difference keeps the bound; one that is not a number does not."""
    return difference <= BOUND * size


def first_strange(dense: nn.Module, moe: nn.Module) -> str | None:
    """Name the first tensor of the mixture that is no copy of its parent's; routers have no parent."""
    parent = dense.state_dict()
    for name, tensor in moe.state_dict().items():
        stem, _, part = name.partition(".experts.")
        copied: Tensor | None
        if part == "gate_up_proj":
            copied = torch.cat([parent[f"{stem}.gate_proj.weight"], parent[f"{stem}.up_proj.weight"]])
        else:
            copied = parent.get(f"{stem}.{part}.weight" if part else name)
        if copied is not None and not (tensor == copied).all():
            return name
    return None


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
        if not _within((a - b).abs().max().item(), a.abs().max().item()):
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
    differences, sizes = [], []
    for index, layer in sparse_layers(moe).items():
        states, out = seen[index]
        expected = plain_mixture(layer.mlp, states, moe.config.num_experts_per_tok, moe.config.norm_topk_prob)
        differences.append((expected - out).abs().max())
        sizes.append(expected.abs().max())
    # The maximum of torch, unlike Python's, does not lose a value that is not a number.
    return {"mixture_difference": torch.stack(differences).max().item(), "largest_output": max(sizes).item()}


def plain_mixture(block: Any, states_TH: Tensor, top_k: int, normalise: bool) -> Tensor:
    """Compute the mixture one token and one pick at a time, from the weights alone."""
    out = torch.zeros_like(states_TH)
    for token, state_H in enumerate(states_TH):
        scores = block.gate.weight.float() @ state_H.float()
        probs = torch.exp(scores - scores.max())
        probs = probs / probs.sum()
        picks = sorted(range(len(probs)), key=lambda e: -probs[e].item())[:top_k]
        total = sum(probs[e].item() for e in picks) if normalise else 1.0
        for e in picks:
            gate_H, up_H = (block.experts.gate_up_proj[e] @ state_H).chunk(2)
            out[token] += probs[e].item() / total * (block.experts.down_proj[e] @ (F.silu(gate_H) * up_H))
    return out
