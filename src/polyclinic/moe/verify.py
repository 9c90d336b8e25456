"""Proof that a mixture equals its dense parent, and that its routing mixes what it should.

Three proofs, since each is blind to what the others see. Same logits: with identical experts and
normalised weights the mixture must equal the parent whatever the router says. Same tensors: a few
tokens visit neither every row of the vocabulary nor every expert, so each tensor must be its
parent's bit for bit. Perturbed apart: identical experts hide every fault of routing and expert
order, so each sparse block with experts moved apart is compared with an independent plain loop over
experts. Both models run part by part (see `skeleton`), so that any size can be proven.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from polyclinic.errors import CheckpointError, ProofError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.blueprint import SIZES, Mixture, blueprint_for, dense_config
from polyclinic.moe.checkpoint import POLYCLINIC, read_config, read_families
from polyclinic.moe.convert import ROUTER_STD, Planned, headers, plan_tensors, source_of
from polyclinic.moe.skeleton import Parts, checked_files, read_tensor, skeleton

BOUND = 2e-6  # relative to the largest |logit|, fp32
SHAPE = (2, 48)  # sequences, tokens
Facts = dict[str, Any]
Blocks = dict[int, tuple[Tensor, Tensor]]  # layer -> what the plain loop and the block gave


class Run(NamedTuple):
    """What one forward gave: logits (batch, tokens, vocabulary) and the states behind every decoder layer."""

    logits: Tensor
    layers: list[Tensor]


def verify(dense_folder: Path, moe_folder: Path, seed: int) -> Facts:
    """Run the proofs and return their figures; raises ProofError where one fails.

    A mixture whose experts were moved (noise, reinit), whose weights are not normalised or whose
    shared expert speaks from the start differs from its parent on purpose: the difference is
    reported (`equal_by_design` false), the other proofs hold all the same.
    """
    mixture = mixture_of(dense_folder, moe_folder)
    tokens, generator = _tokens(dense_folder, seed)
    parent = run(Parts(dense_folder), tokens)
    facts: Facts = {"equal_by_design": equal_by_design(mixture)}
    child = Parts(moe_folder)
    blocks = _watch_blocks(child, generator)
    ours = run(child, tokens)
    facts |= compare(parent, ours)
    if facts["equal_by_design"] and not _within(facts["difference"], facts["largest_logit"]):
        what = f"logits differ from the parent by {facts['difference']:.2e}, {first_difference(parent, ours)}"
        raise ProofError(moe_folder, f"{what}; the bound is {BOUND:g} x {facts['largest_logit']:.2f}", "report this")
    alone = Parts(dense_folder)(tokens[:1])
    facts["dense_batch_difference"] = (parent.logits[:1] - alone).abs().max().item()
    facts["copied_tensors"] = check_copies(dense_folder, moe_folder, mixture)
    facts |= _check_blocks(blocks, moe_folder)
    facts |= _bf16(dense_folder, moe_folder, tokens)
    return facts


def prove_blocks(moe_folder: Path, seed: int) -> Facts:
    """Run the proof that needs no parent: each sparse block, experts apart, against the plain loop."""
    tokens, generator = _tokens(moe_folder, seed)
    parts = Parts(moe_folder)
    blocks = _watch_blocks(parts, generator)
    parts(tokens)
    return _check_blocks(blocks, moe_folder)


def mixture_of(dense_folder: Path, moe_folder: Path) -> Mixture:
    """Read from a checkpoint how it was made; raises CheckpointError or ProofError if it is no child of the parent."""
    dense, moe = read_config(dense_folder), read_config(moe_folder)
    if is_mixture(dense) or not is_mixture(moe):
        raise CheckpointError(moe_folder, "not a mixture beside a dense parent", "give the dense folder first")
    blueprint_for(dense, dense_folder)
    for key in SIZES:
        if dense.get(key) != moe.get(key):
            raise ProofError(moe_folder, f"{key} is not that of {dense_folder}", "give its own parent")
    config = skeleton(moe, moe_folder).config  # checked, and with its defaults
    sparse = [i for i in range(config.num_hidden_layers) if i not in (config.mlp_only_layers or [])]
    made = read_families(moe_folder).get("made", {}) if (moe_folder / POLYCLINIC).is_file() else {}
    if not sparse or not 1 <= config.num_experts_per_tok <= config.num_experts or not isinstance(made, dict):
        what = f"{len(sparse)} sparse layers, {config.num_experts_per_tok} of {config.num_experts} experts, made {made}"
        raise CheckpointError(moe_folder, f"not a mixture ({what})", "fetch the checkpoint again")
    wide = bool(moe.get("shared_expert_intermediate_size"))
    return Mixture(
        sparse_layers=tuple(sparse),
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        normalise=config.norm_topk_prob,
        shared_expert=made.get("shared_expert", "zero" if wide else "none"),
        noise=made.get("noise", 0.0),
        reinit=made.get("reinit", 0.0),
    )


def is_mixture(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json is that of a mixture; newer releases name the number of experts otherwise."""
    return "num_experts" in config or "num_local_experts" in config


def equal_by_design(mixture: Mixture) -> bool:
    """Say whether a mixture must give the logits of its parent."""
    return mixture.normalise and not mixture.noise and not mixture.reinit and mixture.shared_expert != "copy"


def _tokens(folder: Path, seed: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(int(read_config(folder)["vocab_size"]), SHAPE, generator=generator), generator


def _within(difference: float, size: float) -> bool:
    """Say whether a difference keeps the bound; one that is not a number does not."""
    return difference <= BOUND * size


def run(parts: Parts, tokens_BS: Tensor) -> Run:
    """Run a model and keep what every decoder layer hands on."""
    states: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Tensor) -> None:
        states.append(out)

    handles = [layer.register_forward_hook(keep) for layer in parts.model.get_decoder().layers]
    logits = parts(tokens_BS)
    for handle in handles:
        handle.remove()
    return Run(logits, states)


def compare(parent: Run, ours: Run) -> Facts:
    """Return the largest difference of logits and the largest |logit|."""
    difference = (parent.logits - ours.logits).abs().max().item()
    return {"difference": difference, "largest_logit": parent.logits.abs().max().item()}


def first_difference(parent: Run, ours: Run) -> str:
    """Name the first part whose output differs beyond the bound."""
    for index, (a, b) in enumerate(zip(parent.layers, ours.layers, strict=True)):
        if not _within((a - b).abs().max().item(), a.abs().max().item()):
            return f"first at layer {index}"
    return "behind the last layer"


def check_copies(dense_folder: Path, moe_folder: Path, mixture: Mixture) -> int:
    """Compare every tensor that has a parent with it, bit for bit; returns how many."""
    raw = read_config(dense_folder)
    dense_files, files = checked_files(dense_folder), checked_files(moe_folder)
    config, blueprint = dense_config(raw, dense_folder), blueprint_for(raw, dense_folder)
    planned = plan_tensors(headers(dense_files), config, blueprint, mixture)
    strange = sorted({p.name for p in planned} ^ set(files))
    if strange:
        raise ProofError(moe_folder, f"{strange[0]} has no place in a mixture of this parent", "give its own parent")
    copies = [p for p in planned if p.is_copy]
    for tensor in copies:
        if not _same(tensor, dense_files, files):
            raise ProofError(moe_folder, f"{tensor.name} is no copy of the parent's", "report this")
    return len(copies)


def _same(planned: Planned, dense_files: Mapping[str, Path], files: Mapping[str, Path]) -> bool:
    mine = read_tensor(files, planned.name)
    return mine.dtype == planned.dtype and torch.equal(mine, source_of(planned, dense_files))


def _watch_blocks(parts: Parts, generator: torch.Generator) -> Blocks:
    """Have each sparse block, once it has answered, answer again with experts apart; filled by the next forward."""
    found: Blocks = {}
    for index, layer in sparse_layers(parts.model).items():
        layer.mlp.register_forward_hook(partial(_apart, found, index, parts.model.config, generator))
    return found


def _apart(
    found: Blocks,
    index: int,
    config: Any,
    generator: torch.Generator,
    block: Any,
    args: Any,
    _: Any,
) -> None:
    if index in found:  # the call below, or a later forward
        return
    found[index] = (torch.empty(0), torch.empty(0))
    for weight in _movable(block):
        weight.add_(0.5 * weight.std().clamp(min=ROUTER_STD) * torch.randn(weight.shape, generator=generator))
    states_TH = args[0].flatten(0, 1)
    expected = plain_mixture(block, states_TH, config.num_experts_per_tok, config.norm_topk_prob, config.hidden_act)
    found[index] = (expected, block(args[0]).flatten(0, 1))


def _movable(block: Any) -> list[Tensor]:
    """Return what the proof moves: every expert, a shared one and its gate, and a router of zeros.

    The ties of such a router are broken by each implementation in its own way.
    """
    out = [*block.experts.gate_up_proj, *block.experts.down_proj]
    if not block.gate.weight.any():
        out.append(block.gate.weight)
    for name in ("shared_expert", "shared_expert_gate"):
        out += [weight for weight in getattr(block, name, nn.Module()).parameters() if weight.numel()]
    return out


def plain_mixture(block: Any, states_TH: Tensor, top_k: int, normalise: bool, act: str = "silu") -> Tensor:
    """Compute the mixture one expert at a time from the weights alone; every expert sees every token."""
    scores_TE = states_TH.float() @ block.gate.weight.float().T
    shares_TE = torch.exp(scores_TE - scores_TE.max(1, keepdim=True).values)
    shares_TE /= shares_TE.sum(1, keepdim=True)
    weights_TE = torch.zeros_like(shares_TE)
    for token, shares in enumerate(shares_TE.tolist()):
        picks = sorted(range(len(shares)), key=lambda e: -shares[e])[:top_k]
        total = sum(shares[e] for e in picks) if normalise else 1.0
        for e in picks:
            weights_TE[token, e] = shares[e] / total
    out_TH = torch.zeros_like(states_TH)
    for e, (gate_up, down) in enumerate(zip(block.experts.gate_up_proj, block.experts.down_proj, strict=True)):
        gate, up = (states_TH @ gate_up.T).chunk(2, dim=1)
        out_TH += weights_TE[:, e : e + 1].to(out_TH.dtype) * ((ACT2FN[act](gate) * up) @ down.T)
    return out_TH + _shared(block, states_TH, ACT2FN[act])


def _shared(block: Any, states_TH: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    shared = getattr(block, "shared_expert", None)
    if shared is None or not shared.gate_proj.weight.numel():
        return torch.zeros_like(states_TH)
    inner = act(states_TH @ shared.gate_proj.weight.T) * (states_TH @ shared.up_proj.weight.T)
    share_T1 = 1 / (1 + torch.exp(-(states_TH @ block.shared_expert_gate.weight.T)))
    out_TH: Tensor = share_T1 * (inner @ shared.down_proj.weight.T)
    return out_TH


def _check_blocks(blocks: Blocks, folder: Path) -> Facts:
    # The maximum of torch, unlike Python's, does not lose a value that is not a number.
    differences = torch.stack([(expected - out).abs().max() for expected, out in blocks.values()])
    sizes = torch.stack([expected.abs().max() for expected, _ in blocks.values()])
    worst = int((differences / sizes).nan_to_num(nan=torch.inf).argmax())
    facts = {"mixture_difference": differences[worst].item(), "largest_output": sizes[worst].item()}
    if not _within(facts["mixture_difference"], facts["largest_output"]):
        layer = list(blocks)[worst]
        what = f"the block of layer {layer} differs from the plain loop by {facts['mixture_difference']:.2e}"
        raise ProofError(folder, what, "report this")
    return facts


def _bf16(dense_folder: Path, moe_folder: Path, tokens: Tensor) -> Facts:
    """Return the largest difference of logits where both compute in bf16: for scale, no bound."""
    ours, theirs = (Parts(folder, torch.bfloat16)(tokens).float() for folder in (moe_folder, dense_folder))
    return {"bf16_difference": (ours - theirs).abs().max().item()}
