"""Routes of documents: counted where the experts are called, equal to a recount one document at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from polyclinic.analyse.capture import Encoded, capture
from polyclinic.moe import attach as routed
from polyclinic.moe import forward
from polyclinic.moe.checkpoint import load_model

LENGTHS = (1, 2, 3, 17, 17, 40, 41, 90)


@pytest.fixture(scope="module")
def model(mixture: Path) -> PreTrainedModel:
    return load_model(mixture).eval()


@pytest.fixture(scope="module")
def texts(model: PreTrainedModel) -> list[Encoded]:
    draw = np.random.default_rng(0)
    rows = [draw.integers(model.config.vocab_size, size=n).tolist() for n in draw.permutation(LENGTHS)]
    return [Encoded("en" if i % 2 else "ar", row) for i, row in enumerate(rows)]


@torch.no_grad()
def recount(model: PreTrainedModel, document: Encoded, only_first: bool) -> np.ndarray:
    """Count picks [layer, expert] of one document run alone, from the router's logits."""
    k = 1 if only_first else model.config.num_experts_per_tok
    out = model(input_ids=torch.tensor([document.tokens]), output_router_logits=True)
    picks = [logits.softmax(-1).topk(k).indices.flatten() for logits in out.router_logits]
    return np.array([np.bincount(p, minlength=model.config.num_experts) for p in picks])


def test_counts_are_those_of_each_document_alone(model: PreTrainedModel, texts: list[Encoded]) -> None:
    routes = capture(model, texts)
    assert routes.languages == [t.language for t in texts]
    for i, text in enumerate(texts):
        assert np.array_equal(routes.first_DLE[i], recount(model, text, only_first=True))
        assert np.array_equal(routes.all_DLE[i], recount(model, text, only_first=False))
    assert (routes.all_DLE.sum((0, 1)) > 0).sum() > 2  # more than one expert is at work


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_how_documents_are_batched_changes_nothing(
    model: PreTrainedModel, texts: list[Encoded], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    expected = capture(model, texts)
    monkeypatch.setattr(forward, "BATCH_TOKENS", budget)
    assert len(list(forward.batches([t.tokens for t in texts]))) == {1: 8, 100: 3, 100_000: 1}[budget]
    routes = capture(model, texts)
    assert np.array_equal(routes.first_DLE, expected.first_DLE)
    assert np.array_equal(routes.all_DLE, expected.all_DLE)


def test_every_token_is_counted_once_a_layer_and_k_times_in_all(model: PreTrainedModel, texts: list[Encoded]) -> None:
    routes = capture(model, texts)
    assert routes.layers == list(routed.sparse_layers(model)) == [1, 2]
    lengths = np.array([[len(t.tokens)] * 2 for t in texts])
    assert np.array_equal(routes.first_DLE.sum(2), lengths)
    assert np.array_equal(routes.all_DLE.sum(2), lengths * model.config.num_experts_per_tok)
    assert (routes.all_DLE >= routes.first_DLE).all()


def test_nothing_stays_behind_in_the_model(model: PreTrainedModel, texts: list[Encoded]) -> None:
    capture(model, texts)
    with pytest.raises(IndexError):
        capture(model, [Encoded("en", [model.config.vocab_size])])
    layers = routed.sparse_layers(model).values()
    assert not any(layer.mlp.experts._forward_pre_hooks for layer in layers)


def test_a_model_that_could_be_told_the_family_is_not_told(mixture: Path, texts: list[Encoded]) -> None:
    """Told the family, expert and language would be tied by construction."""
    model = load_model(mixture).eval()
    free = capture(model, texts)
    routed.attach(model, routed.Routing.HYBRID)
    told = capture(model, texts)
    assert np.array_equal(free.all_DLE, told.all_DLE)
