"""What routers tell of themselves: the formulas token by token, no padding, once per forward, no gradient."""

import math
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from moe.inputs import some_tokens
from polyclinic.moe.attach import Routing, attach, routers_of, sparse_layers
from polyclinic.moe.balance import Balance, Loads
from polyclinic.moe.watch import RouterWatch

EXPERT_OF = [2, 0, -1, 2]  # of four groups; the third has no family


def numbers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits_TE = 3 * torch.randn(40, 4, generator=draw)
    return logits_TE, torch.rand(40, generator=draw) < 0.7, torch.randint(-1, 4, (40,), generator=draw)


def test_entropy_z_and_own_expert_are_their_formulas_token_by_token() -> None:
    watch = RouterWatch(EXPERT_OF)
    rows: list[tuple[list[float], int]] = []
    for seed in (0, 1):
        logits_TE, counted_T, group_T = numbers(seed)
        watch.add(0, logits_TE, logits_TE.softmax(-1), counted_T, group_T, 2)
        rows += [(logits_TE[t].tolist(), int(group_T[t])) for t in range(40) if counted_T[t]]
    (figures,) = watch.take()
    entropies, squares, own = [], [], {0: [0, 0], 2: [0, 0]}
    for logits, group in rows:
        total = sum(math.exp(x) for x in logits)
        entropies.append(-sum(math.exp(x) / total * math.log(math.exp(x) / total) for x in logits))
        squares.append(math.log(total) ** 2)
        if group >= 0 and EXPERT_OF[group] >= 0:
            best = sorted(range(4), key=lambda e: -logits[e])[:2]
            own[EXPERT_OF[group]][0] += EXPERT_OF[group] in best
            own[EXPERT_OF[group]][1] += 1
    assert figures.entropy == pytest.approx(sum(entropies) / len(rows), rel=1e-5)
    assert figures.z == pytest.approx(sum(squares) / len(rows), rel=1e-5)
    assert figures.own == {expert: found / count for expert, (found, count) in own.items()}
    assert watch.take() == []


def test_an_even_router_has_the_entropy_of_all_experts_and_a_sure_one_none() -> None:
    for logits_TE, entropy in ((torch.zeros(3, 5), math.log(5)), (1e4 * torch.eye(5)[:3], 0.0)):
        watch = RouterWatch()
        watch.add(0, logits_TE, logits_TE.softmax(-1), torch.ones(3, dtype=torch.bool), None, 2)
        (figures,) = watch.take()
        assert figures.entropy == pytest.approx(entropy, abs=1e-6)
        assert figures.own == {}


def test_tokens_that_are_not_counted_change_nothing_even_where_they_are_no_numbers() -> None:
    logits_TE, counted_T, group_T = numbers()
    spoiled_TE = torch.where(counted_T[:, None], logits_TE, float("nan"))
    told = []
    for values_TE in (logits_TE, spoiled_TE):
        watch = RouterWatch(EXPERT_OF)
        watch.add(0, values_TE, values_TE.softmax(-1), counted_T, group_T, 2)
        told.append(watch.take())
    assert told[0] == told[1]


def watched(model: PreTrainedModel, mode: Routing) -> tuple[Balance, list[torch.Tensor]]:
    """Run forward and backward; returns the balance and the router logits of the forward."""
    balance, logits = Balance(loads=Loads(5), routers=RouterWatch([0, 1, 2, 3, 4])), []
    attach(model.train(), mode, balance)
    for layer in sparse_layers(model).values():
        (router,) = routers_of(layer)
        router.register_forward_hook(lambda _, args, out: logits.append(out[0].detach()))
    tokens = some_tokens()
    groups = tokens % 6 - 1  # -1 is padding
    model(tokens, labels=tokens, family_ids=groups, group_ids=groups).loss.backward()
    return balance, logits


@pytest.mark.parametrize("mode", [Routing.HYBRID, Routing.TOPK, Routing.LANGUAGE])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_routing_tells_each_layer_once_per_forward_with_no_balance_asked(
    mixture: Any, kind: str, mode: Routing, checkpointing: bool
) -> None:
    model = mixture(kind)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    balance, logits = watched(model, mode)
    tokens = (some_tokens() % 6 > 0).sum().item()
    assert [sums_3[2].item() for sums_3, _ in balance.routers._sums.values()] == [tokens] * len(sparse_layers(model))
    figures = balance.routers.take()
    assert len(figures) == len(sparse_layers(model))
    assert len(logits) == len(figures) * (2 if checkpointing else 1)
    counted_T = (some_tokens() % 6 > 0).flatten()
    assert 0 < counted_T.sum() < counted_T.numel()
    for told, logits_TE in zip(figures, logits, strict=False):
        probs_TE = logits_TE[counted_T].double().softmax(-1)
        assert told.entropy == pytest.approx(-(probs_TE * probs_TE.log()).sum(-1).mean().item(), rel=1e-5)
        assert told.z == pytest.approx(logits_TE[counted_T].double().logsumexp(-1).square().mean().item(), rel=1e-5)


def test_watching_gives_no_gradient(mixture: Any, kind: str) -> None:
    gradients = []
    for blind in (False, True):
        model = mixture(kind)
        with pytest.MonkeyPatch.context() as patch:
            if blind:
                patch.setattr(RouterWatch, "add", lambda *_: None)
            watched(model, Routing.HYBRID)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(gradient.equal(gradients[1][name]) for name, gradient in gradients[0].items())
