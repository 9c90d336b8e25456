"""Every routing of the paper, restated in plain loops from its text, against the attached stock block.

Restated from the description of the published code: r = softmax over the experts of W x, no bias,
in fp32; vanilla takes the top k; hybrid-k puts the label's expert in place of the last pick if it
is absent; language-specific takes the label's expert with weight 1, beside a shared expert times a
sigmoid gate. Weights are r at the final picks, divided by their sum only if the model normalises.
"""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from drawing import drawn
from polyclinic.moe.attach import Routing, attach, sparse_layers

RULES = {  # mode: the rule in training, the rule at test
    Routing.TOPK: ("vanilla", "vanilla"),
    Routing.HYBRID_TRAINING: ("hybrid", "vanilla"),
    Routing.HYBRID: ("hybrid", "hybrid"),
    Routing.LANGUAGE_TRAINING: ("language", "vanilla"),
    Routing.LANGUAGE: ("language", "language"),
}
# The stock grouped product takes no fp64. Elsewhere what differs is the rounding of fp32 probabilities.
EXACTNESS = {"eager": (torch.float64, 2e-6), "batched_mm": (torch.float64, 2e-6), "grouped_mm": (torch.float32, 1e-5)}


class Case(NamedTuple):
    """Sizes of a mixture, a family per token (rows, tokens), how it routes, and a seed."""

    num_experts: int
    top_k: int
    normalise: bool
    families: list[list[int]]
    mode: Routing
    training: bool
    seed: int

    @property
    def rule(self) -> str:
        """The rule that the mode stands for."""
        return RULES[self.mode][0 if self.training else 1]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_experts, rows, length = draw(st.integers(1, 7)), draw(st.integers(1, 2)), draw(st.integers(1, 5))
    row = st.lists(st.integers(-1, num_experts - 1), min_size=length, max_size=length)
    families = draw(st.lists(row, min_size=rows, max_size=rows))
    top_k, mode = draw(st.integers(1, num_experts)), draw(st.sampled_from(Routing))
    normalise, training, seed = draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 9))
    return Case(num_experts, top_k, normalise, families, mode, training, seed)


def routed(rule: str, probs: Tensor, family: int, top_k: int, normalise: bool) -> list[tuple[int, Tensor]]:
    """Picks of one token with their weights."""
    if rule == "language" and family != -1:
        return [(family, torch.tensor(1.0))]
    ranked = sorted(range(len(probs)), key=lambda e: -probs[e].item())
    picks = ranked[:top_k]
    if rule == "hybrid" and family != -1 and family not in picks:
        picks = [*ranked[: top_k - 1], family]
    total = sum(probs[e] for e in picks) if normalise else 1.0
    return [(e, probs[e] / total) for e in picks]


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item()


class Restated:
    """One sparse block in loops; leaves are copies of its weights."""

    def __init__(self, block: Any, case: Case) -> None:
        self.leaves = {name: p.detach().clone().requires_grad_() for name, p in block.named_parameters() if p.numel()}
        self.case = case
        # By gate: what a part of the mixture adds to a token, and the token's state.
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {"gate.weight": [], "shared_expert_gate.weight": []}

    def swiglu(self, state: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return down @ (torch.nn.functional.silu(gate @ state) * (up @ state))

    def __call__(self, states: Tensor) -> tuple[Tensor, list[list[tuple[int, Tensor]]]]:
        """Return the block's output (rows, tokens, hidden) and the picks of every token in turn."""
        w, picks, rows = self.leaves, [], []
        for row, families in zip(states, self.case.families, strict=True):
            tokens = []
            for state, family in zip(row, families, strict=True):
                probs = (w["gate.weight"] @ state).softmax(-1, dtype=torch.float32)
                chosen = routed(self.case.rule, probs, family, self.case.top_k, self.case.normalise)
                picks.append([(expert, weight.to(state)) for expert, weight in chosen])
                out = torch.zeros_like(state)
                for expert, weight in picks[-1]:
                    gate, up = w["experts.gate_up_proj"][expert].chunk(2)
                    part = weight * self.swiglu(state, gate, up, w["experts.down_proj"][expert])
                    out = out + (self.noted("gate.weight", part, state) if weight.requires_grad else part)
                if "shared_expert.up_proj.weight" in w:
                    shared = (w[f"shared_expert.{part}_proj.weight"] for part in ("gate", "up", "down"))
                    part = (w["shared_expert_gate.weight"][0] @ state).sigmoid() * self.swiglu(state, *shared)
                    out = out + self.noted("shared_expert_gate.weight", part, state)
                tokens.append(out)
            rows.append(torch.stack(tokens))
        return torch.stack(rows), picks

    def noted(self, gate: str, part: Tensor, state: Tensor) -> Tensor:
        part.retain_grad()
        self.parts[gate].append((part, state.detach()))
        return part

    def size_of(self, name: str) -> float:
        """Return the size of what a gradient is the sum of; most of it may cancel in that of a gate."""
        if name not in self.parts:
            gradient = self.leaves[name].grad
            return 0.0 if gradient is None else largest(gradient)
        sizes = [(part.grad * part).detach().abs().sum() * state.abs().max() for part, state in self.parts[name]]
        return float(sum(sizes))


def model_of(mixture: Any, kind: str, case: Case, **more: Any) -> PreTrainedModel:
    sizes = {"num_experts": case.num_experts, "num_experts_per_tok": case.top_k, "norm_topk_prob": case.normalise}
    shared = {"shared_expert_intermediate_size": 24} if kind == "qwen2" and case.seed % 2 else {}
    return mixture(kind, case.seed, moe_intermediate_size=8, **sizes, **shared, **more)


def captured(layer: Any, what: str, into: list[Any]) -> None:
    """Keep the inputs (what=experts: states, picks, weights) or the input and output of the block."""
    if what == "experts":
        layer.mlp.experts.register_forward_pre_hook(lambda _, args: into.append(args))
    else:

        def block(_: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            args[0].retain_grad()
            output.retain_grad()
            into.append((args[0], output))

        layer.mlp.register_forward_hook(block)


def assert_near(got: Tensor, expected: Tensor, size: float, share: float) -> None:
    """Hold a difference against the size of what was summed: in another order sums round by a share of that."""
    assert (got - expected).abs().max() <= share * max(size, 1e-3)


@pytest.mark.parametrize("experts", list(EXACTNESS))
@settings(deadline=None, max_examples=drawn(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_picks_weights_and_gradients_are_those_of_the_rule_in_plain_loops(
    mixture: Any, kind: str, experts: str, case: Case
) -> None:
    model, families = model_of(mixture, kind, case).train(case.training), torch.tensor(case.families)
    dtype, share = EXACTNESS[experts]
    model.to(dtype).set_experts_implementation(experts)
    called: list[Any] = []
    blocks: list[Any] = []
    for layer in sparse_layers(model).values():
        captured(layer, "experts", called)
        captured(layer, "block", blocks)
    attach(model, case.mode)
    draw = torch.Generator().manual_seed(case.seed)
    embedded = torch.randn((*families.shape, 32), generator=draw).to(dtype)
    model(inputs_embeds=embedded, family_ids=families).logits.square().mean().backward()
    assert len(blocks) == 2
    for layer, (_, experts_TK, weights_TK), (states, output) in zip(
        sparse_layers(model).values(), called, blocks, strict=True
    ):
        restated, leaf = Restated(layer.mlp, case), states.detach().requires_grad_()
        expected, picks = restated(leaf)
        expected.backward(output.grad)
        for token, chosen in enumerate(picks):
            k = len(chosen)
            assert experts_TK[token, :k].tolist() == [e for e, _ in chosen]
            assert all(experts_TK[token, k:] == chosen[0][0])  # what carries nothing calls no other expert
            assert all(weights_TK[token, k:] == 0.0)
            torch.testing.assert_close(weights_TK[token, :k], torch.stack([w for _, w in chosen]))
            assert case.rule != "language" or families.flatten()[token] == -1 or weights_TK[token, 0] == 1.0
        assert_near(output, expected, largest(expected), share)
        assert_near(states.grad, leaf.grad, max(largest(leaf.grad), restated.size_of("gate.weight")), share)
        for name, parameter in layer.mlp.named_parameters():
            wanted, got = restated.leaves[name].grad, parameter.grad
            zeros = torch.zeros_like(parameter)
            got, wanted = zeros if got is None else got, zeros if wanted is None else wanted
            assert_near(got, wanted, restated.size_of(name), share)
            if case.rule == "language" and name == "gate.weight" and (families != -1).all():
                assert not got.any()  # the router gets no gradient


@pytest.mark.parametrize("autocast", [False, True])
def test_router_probabilities_are_taken_in_full_precision_in_a_half_precision_model(
    mixture: Any, kind: str, autocast: bool
) -> None:
    case = Case(5, 3, True, [[0, 1, 4, -1, 2, 3]], Routing.HYBRID, False, 0)
    model, families = model_of(mixture, kind, case), torch.tensor(case.families)
    layer, called, logits = sparse_layers(model)[1], [], []
    captured(layer, "experts", called)
    layer.mlp.gate.register_forward_hook(lambda _, __, out: logits.append(out[0]))
    attach(model, case.mode)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        (model if autocast else model.to(torch.bfloat16))(torch.arange(1, 7)[None], family_ids=families)
    _, experts_TK, weights_TK = called[0]
    assert weights_TK.dtype is logits[0].dtype is torch.bfloat16
    for token, family in enumerate(case.families[0]):
        chosen = routed("hybrid", logits[0][token].float().softmax(-1), family, 3, True)
        assert experts_TK[token].tolist() == [e for e, _ in chosen]
        assert weights_TK[token].equal(torch.stack([w for _, w in chosen]).to(torch.bfloat16))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_baseline_at_test_asks_its_router_as_published_and_the_label_as_repaired(
    mixture: Any, normalise: bool
) -> None:
    """A shared expert and one routed expert; as published the label only counts in training."""
    tokens, families = torch.arange(1, 5)[None], [[3, 3, 3, 3]]
    for mode, label_at_test in ((Routing.LANGUAGE_TRAINING, False), (Routing.LANGUAGE, True)):
        case = Case(5, 1, normalise, families, mode, False, 1)
        model = model_of(mixture, "qwen2", case)
        layer, called, blocks = sparse_layers(model)[1], [], []
        assert layer.mlp.shared_expert.up_proj.weight.shape == (24, 32)
        captured(layer, "experts", called)
        captured(layer, "block", blocks)
        attach(model, mode)
        for training in (False, True):
            model.train(training)(tokens, family_ids=torch.tensor(families))
            states, experts_TK, weights_TK = called[-1]
            probs = (states @ layer.mlp.gate.weight.T).softmax(-1)
            assert not (probs.argmax(-1) == 3).all()
            label = training or label_at_test
            assert experts_TK.flatten().equal(torch.full((4,), 3) if label else probs.argmax(-1))
            one = label or normalise
            torch.testing.assert_close(weights_TK.flatten(), torch.ones(4) if one else probs.amax(-1))
            restated = Restated(layer.mlp, case._replace(training=training))(blocks[-1][0])[0]
            torch.testing.assert_close(blocks[-1][1], restated)
