"""torch.compile: the attached model compiles whole where the stock model does, and says the same."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import PreTrainedModel

from moe.inputs import some_tokens
from polyclinic.moe.attach import Routing, attach, routing
from polyclinic.moe.balance import Balance


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def small(mixture: Any, kind: str) -> PreTrainedModel:
    """A dense and a sparse layer; the stock loop over experts would break a graph, grouped_mm does not."""
    model: PreTrainedModel = mixture(kind, num_hidden_layers=2)
    model.set_experts_implementation("grouped_mm")
    return model


@pytest.mark.parametrize(
    ("backend", "mode"),
    [("aot_eager", Routing.HYBRID), pytest.param("eager", Routing.LANGUAGE, marks=pytest.mark.soak)],
)
def test_a_whole_graph_with_family_ids_gives_the_outputs_and_gradients_of_no_graph(
    mixture: Any, kind: str, backend: str, mode: Routing
) -> None:
    tokens, results = some_tokens(), []
    ids = tokens % 6 - 1
    for compiled in (False, True):
        model = small(mixture, kind).train()
        attach(model, mode)
        call = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        out = call(input_ids=tokens, labels=tokens, family_ids=ids, use_cache=False)
        out.loss.backward()
        results.append((out.logits, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_other_ids_and_other_modes_are_not_answered_from_an_older_graph(mixture: Any) -> None:
    model, tokens = small(mixture, "qwen2"), some_tokens()
    attach(model, Routing.HYBRID)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    answers = []
    for call in (model, compiled):
        answers.append([call(input_ids=tokens, use_cache=False).logits])
        for ids in (torch.zeros_like(tokens), torch.full_like(tokens, 3), tokens % 6 - 1):
            answers[-1].append(call(input_ids=tokens, family_ids=ids, use_cache=False).logits)
        for mode in (Routing.TOPK, Routing.HYBRID, Routing.LANGUAGE):
            with routing(model, mode, [0, 4]):
                answers[-1].append(call(input_ids=tokens, use_cache=False).logits)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(answers[0][1], answers[0][2])
    assert not torch.allclose(answers[0][5], answers[0][6])  # hybrid and language


@torch.no_grad()
def test_new_families_are_answered_from_the_graph_of_others(mixture: Any) -> None:
    model, tokens, counter = small(mixture, "qwen3"), some_tokens(), CompileCounter()
    attach(model, Routing.HYBRID)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for step in range(5):
        compiled(input_ids=tokens, family_ids=(tokens + step) % 6 - 1, use_cache=False)
    assert counter.frame_count == 1
    for step in range(5):
        with routing(model, Routing.HYBRID, [step, 4 - step]):
            compiled(input_ids=tokens, use_cache=False)
    assert counter.frame_count == 2  # one for ids of a call, one for those of a block


@pytest.mark.soak
def test_balance_losses_join_a_compiled_training(mixture: Any) -> None:
    tokens, results = some_tokens(), []
    for compiled in (False, True):
        model, balance = small(mixture, "qwen3").train(), Balance(0.5, 0.1, bias_LE=0.1 * torch.eye(5)[:1])
        attach(model, Routing.HYBRID, balance)
        call = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        call(input_ids=tokens, labels=tokens, family_ids=tokens % 5, use_cache=False).loss.backward()
        results.append(({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, balance.loads.take()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    assert results[1][1].equal(results[0][1])
    assert results[0][1].sum() == tokens.numel() * 2
