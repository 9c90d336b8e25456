"""Hybrid-k against the same rule written out token by token."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyclinic.moe.attach import Routing, attach, sparse_layers
from polyclinic.moe.router import UNKNOWN_FAMILY, hybrid_picks


class Case(NamedTuple):
    """Router logits (tokens, experts) without ties, a family per token, and k."""

    logits: Tensor
    families: list[int]
    top_k: int


@st.composite
def cases(draw: st.DrawFn, unknown: bool = True) -> Case:
    num_experts, num_tokens = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    ranks = [draw(st.permutations(range(num_experts))) for _ in range(num_tokens)]
    lowest = UNKNOWN_FAMILY if unknown else 0
    families = st.lists(st.integers(lowest, num_experts - 1), min_size=num_tokens, max_size=num_tokens)
    spread = draw(st.floats(0.01, 2.0))
    return Case(spread * torch.tensor(ranks).float(), draw(families), draw(st.integers(1, num_experts)))


def picks_of(probs: list[float], family: int, top_k: int) -> list[int]:
    """The rule in plain words: the k most probable; an absent family takes the place of the weakest."""
    picks = sorted(range(len(probs)), key=lambda e: probs[e], reverse=True)[:top_k]
    return picks if family == -1 or family in picks else [*picks[:-1], family]


def weights_of(probs: Tensor, picks: list[int], normalise: bool) -> Tensor:
    chosen = torch.stack([probs[e] for e in picks])
    return chosen / sum(probs[e] for e in picks) if normalise else chosen


@settings(deadline=None, max_examples=50)
@given(cases(), st.booleans())
def test_picks_and_weights_follow_the_rule_written_out_token_by_token(case: Case, normalise: bool) -> None:
    probs = case.logits.softmax(-1)
    experts, weights = hybrid_picks(probs, torch.tensor(case.families), case.top_k, normalise)
    for token, family in enumerate(case.families):
        expected = picks_of(probs[token].tolist(), family, case.top_k)
        assert experts[token].tolist() == expected
        torch.testing.assert_close(weights[token], weights_of(probs[token], expected, normalise))


@settings(deadline=None, max_examples=50)
@given(cases(unknown=False))
def test_a_known_family_is_always_among_distinct_picks_strongest_first(case: Case) -> None:
    experts, weights = hybrid_picks(case.logits.softmax(-1), torch.tensor(case.families), case.top_k, True)
    for family, row in zip(case.families, experts.tolist(), strict=True):
        assert family in row
        assert len(set(row)) == case.top_k
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(case.families)))
    assert (weights.diff(dim=-1) <= 0).all()


@settings(deadline=None, max_examples=50)
@given(cases())
def test_an_unknown_family_is_plain_top_k_bit_for_bit(case: Case) -> None:
    probs = case.logits.softmax(-1)
    expected = probs.topk(case.top_k)
    for families in (None, torch.full((len(probs),), UNKNOWN_FAMILY)):
        experts, weights = hybrid_picks(probs, families, case.top_k, normalise=False)
        assert torch.equal(experts, expected.indices)
        assert torch.equal(weights, expected.values)


@settings(deadline=None, max_examples=50)
@given(cases(), st.booleans(), st.integers(0, 99))
def test_the_gradient_is_that_of_the_rule_written_out(case: Case, normalise: bool, seed: int) -> None:
    upstream = torch.randn(len(case.families), case.top_k, generator=torch.Generator().manual_seed(seed))
    ours = case.logits.clone().requires_grad_()
    weights = hybrid_picks(ours.softmax(-1), torch.tensor(case.families), case.top_k, normalise).weights_TK
    (weights * upstream).sum().backward()
    theirs = case.logits.clone().requires_grad_()
    probs = theirs.softmax(-1)
    picks = [picks_of(p.tolist(), f, case.top_k) for p, f in zip(probs, case.families, strict=True)]
    written_out = torch.stack([weights_of(p, row, normalise) for p, row in zip(probs, picks, strict=True)])
    (written_out * upstream).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_reaches_the_router_through_a_forced_pick() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]], requires_grad=True)
    hybrid_picks(logits.softmax(-1), torch.tensor([3]), 2, normalise=True).weights_TK[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad[0, 3] > 0
    assert logits.grad[0, 0] < 0


@pytest.mark.parametrize("family", [4, -2])
def test_a_family_that_is_no_expert_raises(family: int) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        hybrid_picks(torch.rand(1, 4).softmax(-1), torch.tensor([family]), 2, normalise=True)


@pytest.mark.parametrize("mode", list(Routing))
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_attached_router_without_ids_equals_the_stock_router_bit_for_bit(
    mixture: Any, kind: str, dtype: torch.dtype, normalise: bool, mode: Routing
) -> None:
    model = mixture(kind, norm_topk_prob=normalise).to(dtype)
    router = sparse_layers(model)[1].mlp.gate
    states = torch.randn(200, 32, dtype=dtype)
    stock = router(states)
    attach(model, mode)
    for ours, theirs in zip(router(states), stock, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
