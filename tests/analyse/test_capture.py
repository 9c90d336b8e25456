"""Picks read where experts are called: of every architecture, those that a router written out by hand makes."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

import stock_mixtures as stock
from polyclinic.analyse.capture import Call, heaviest, num_experts, places, scale_of, sigmoid, softmax, watching
from polyclinic.errors import CheckpointError

IDS = np.random.default_rng(0).integers(stock.VOCABULARY, size=40).tolist()


def seen(built: nn.Module, ids: list[int]) -> list[Call]:
    calls: dict[int, Call] = {}
    with watching(built, lambda position, call: calls.__setitem__(position, call)), torch.no_grad():
        built(input_ids=torch.tensor([ids]))
    return [calls[i] for i in sorted(calls)]


@pytest.mark.parametrize("kind", stock.CONFIGS)
def test_picks_weights_and_scores_are_those_of_the_router_written_out(kind: str) -> None:
    built = stock.model(kind)
    calls, expected = seen(built, IDS), stock.routed(kind, built, IDS)
    assert [place.layer for place in places(built)] == stock.LAYERS[kind]
    assert num_experts(built) == stock.EXPERTS
    assert len(calls) == len(expected)
    for call, truth in zip(calls, expected, strict=True):
        order, by_hand = call.picks_TK.argsort(1), np.argsort(truth["picks"], 1)
        assert np.array_equal(call.picks_TK.gather(1, order), np.take_along_axis(truth["picks"], by_hand, 1))
        weights = np.take_along_axis(truth["weights"], by_hand, 1)
        assert np.allclose(call.weights_TK.gather(1, order), weights, atol=1e-4)
        assert np.allclose(call.probs_TE, truth["probs"], atol=1e-4)


@pytest.mark.parametrize("kind", stock.SIGMOID)
def test_a_correction_bias_is_in_the_picks_and_not_in_the_scores(kind: str) -> None:
    built = stock.model(kind)
    for router in stock.routers(kind, built):
        router.e_score_correction_bias[5] += 100
    for call in seen(built, IDS):
        assert (call.picks_TK == 5).any(1).all()
        assert call.probs_TE is not None
        assert not (call.probs_TE.topk(stock.PICKS).indices == 5).any(1).all()


def test_picks_that_a_replaced_router_forces_are_seen() -> None:
    """The stock recorder shows the logits only, which say nothing of them."""
    built = stock.model("qwen3_moe")
    for router in stock.routers("qwen3_moe", built):
        router.register_forward_hook(lambda _, __, out: (out[0], out[1], torch.full_like(out[2], 6)))
    calls = seen(built, IDS)
    assert all((call.picks_TK == 6).all() for call in calls)
    assert [call.probs_TE for call in calls] == [None, None]  # the weights are not those of the picks


def test_a_dense_model_is_no_mixture() -> None:
    config = Qwen3Config(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(CheckpointError, match=r"^qwen3: is not a mixture"):
        places(Qwen3ForCausalLM(config))


def test_nothing_stays_behind_in_the_model() -> None:
    built = stock.model("mixtral")
    with pytest.raises(IndexError):
        seen(built, [stock.VOCABULARY])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in built.modules())


@pytest.mark.parametrize("truth", [softmax, sigmoid])
@pytest.mark.parametrize("factor", [1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_how_a_router_scores_is_told_from_its_weights(truth, factor, dtype) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    picks = logits.topk(3).indices
    weights = (factor * truth(logits).gather(1, picks)).to(dtype)
    assert scale_of(logits, picks, weights, biased=False) is truth
    assert scale_of(logits, picks, torch.ones_like(weights), biased=False) is None


def test_a_single_normalised_pick_leaves_the_scoring_to_the_bias() -> None:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    picks = logits.topk(1).indices
    assert scale_of(logits, picks, torch.ones(8, 1), biased=True) is sigmoid
    assert scale_of(logits, picks, torch.ones(8, 1), biased=False) is softmax


def test_the_heaviest_pick_counts_as_first_and_of_equal_ones_the_lowest_expert() -> None:
    picks = torch.tensor([[4, 2, 7], [7, 3, 1]])
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert heaviest(Call(picks, weights, None), 8).tolist() == [2, 1]
