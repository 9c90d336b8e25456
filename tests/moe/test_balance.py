"""Balance losses by hand, the case a pooled loss cannot see, and their way through recomputation."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.qwen2_moe.modeling_qwen2_moe import load_balancing_loss_func

from moe.inputs import some_tokens
from polyclinic.moe.attach import Routing, attach, routing, sparse_layers
from polyclinic.moe.balance import Balance, Loads, grows, load_balance_loss, next_bias, remaining, z_loss
from polyclinic.moe.router import hybrid_picks

CHECKPOINTING = [None, True, False]  # use_reentrant; None means none


def everything(tokens: int) -> Tensor:
    return torch.ones(tokens, dtype=torch.bool)


# The losses in closed form


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_uniform_routing_has_a_load_balance_loss_of_one(top_k: int) -> None:
    probs = torch.full((4, 4), 0.25)
    experts = torch.stack([torch.arange(4).roll(shift) for shift in range(top_k)], 1)
    assert load_balance_loss(probs, experts, everything(4)).item() == pytest.approx(1.0)


def test_one_expert_that_takes_all_costs_the_number_of_experts() -> None:
    probs = torch.eye(5)[torch.zeros(6, dtype=torch.long)]
    experts = torch.zeros(6, 1, dtype=torch.long)
    assert load_balance_loss(probs, experts, everything(6)).item() == pytest.approx(5.0)


def test_the_load_balance_loss_by_hand() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4]])
    experts = torch.tensor([[0, 1], [0, 2]])
    # f = (2, 1, 1) / 4, P = (0.6, 0.15, 0.25)
    expected = 3 * (0.5 * 0.6 + 0.25 * 0.15 + 0.25 * 0.25)
    assert load_balance_loss(probs, experts, everything(2)).item() == pytest.approx(expected)


def test_the_z_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    expected = (math.log(2) ** 2 + math.log(4) ** 2) / 2
    assert z_loss(logits, everything(2)).item() == pytest.approx(expected)
    assert z_loss(logits.bfloat16(), everything(2)).dtype is torch.float32


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.data())
def test_losses_and_their_gradients_are_those_of_the_counted_tokens_alone(
    num_experts: int, data: st.DataObject
) -> None:
    tokens, top_k = data.draw(st.integers(1, 8)), data.draw(st.integers(1, num_experts))
    counted = torch.tensor(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))
    values = torch.randn(tokens, num_experts, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))

    def losses(logits: Tensor, counted: Tensor) -> Tensor:
        probs = logits.softmax(-1)
        picks = hybrid_picks(probs, None, top_k, True).experts_TK
        return load_balance_loss(probs, picks, counted) + z_loss(logits, counted)

    masked = values.clone()
    masked[~counted] = float("nan")  # what padding holds is nobody's business
    alone = values[counted].requires_grad_()
    picks = hybrid_picks(values.softmax(-1), None, top_k, True).experts_TK
    ours = load_balance_loss(masked.softmax(-1), picks, counted) + z_loss(masked, counted)
    if not counted.any():
        assert ours.item() == 0.0
        return
    theirs = losses(alone, everything(len(alone)))
    torch.testing.assert_close(ours, theirs)
    theirs.backward()
    clean = values.clone().requires_grad_()
    losses(clean, counted).backward()
    assert clean.grad is not None
    torch.testing.assert_close(clean.grad[counted], alone.grad)
    assert not clean.grad[~counted].any()


def test_two_layers_of_opposite_imbalance_look_balanced_to_the_stock_loss_and_not_to_ours() -> None:
    half = torch.tensor([[9.0, 9.0, 0.0, 0.0]]).expand(10, 4)
    layers = (half, half.roll(2, dims=-1))  # one uses experts 0 and 1, the other 2 and 3
    assert load_balancing_loss_func(layers, 4, 2).item() / 2 == pytest.approx(1.0, abs=1e-3)  # sums over k = 2
    ours = [load_balance_loss(x.softmax(-1), x.topk(2).indices, everything(10)).item() for x in layers]
    assert ours == pytest.approx([2.0, 2.0], abs=1e-2)


def test_each_layer_alone_has_the_stock_loss_of_that_layer() -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ours = load_balance_loss(logits.softmax(-1), logits.topk(3).indices, everything(50))
    torch.testing.assert_close(3 * ours, load_balancing_loss_func((logits,), 6, 3))


# The bias


def test_the_bias_rises_below_the_mean_load_of_its_layer_and_falls_above() -> None:
    loads = torch.tensor([[10, 2, 6, 6], [0, 0, 0, 8]])
    moved = next_bias(torch.zeros(2, 4), loads, 0.5)
    assert moved.tolist() == [[-0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, -0.5]]


def test_the_bias_changes_picks_and_never_weights() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    bias = torch.tensor([0.0, 0.0, 0.0, 1.0])
    experts, weights = hybrid_picks(probs, None, 2, False, bias)
    assert experts.tolist() == [[3, 0]]
    assert weights.tolist() == [[probs[0, 3], probs[0, 0]]]
    assert hybrid_picks(probs, torch.tensor([2]), 2, False, bias).experts_TK.tolist() == [[3, 2]]


def test_a_constant_bias_evens_out_the_loads() -> None:
    logits = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + torch.arange(6.0) / 3
    probs, bias = logits.softmax(-1), torch.zeros(1, 6)

    def load() -> Tensor:
        return torch.bincount(hybrid_picks(probs, None, 2, True, bias[0]).experts_TK.flatten(), minlength=6)

    before = load().max() / load().float().mean()
    for _ in range(300):
        bias = next_bias(bias, load()[None], 0.002)
    after = load().max() / load().float().mean()
    assert before > 1.7
    assert after < 1.15


@settings(deadline=None)
@given(st.integers(1, 500))
def test_the_bias_is_whole_while_it_grows_and_exactly_nothing_at_four_fifths(steps: int) -> None:
    shares = [remaining(step, steps) for step in range(steps + 1)]
    assert all(share == 1.0 for step, share in enumerate(shares) if grows(step, steps))
    assert shares == sorted(shares, reverse=True)
    assert shares[4 * steps // 5 :] == [0.0] * (steps + 1 - 4 * steps // 5)
    fall = [a - b for a, b in itertools.pairwise(shares) if a != b]
    assert fall == pytest.approx([fall[0]] * len(fall), abs=1e-9) if fall else True


# Through the model


def outside(model: PreTrainedModel, balance: Balance, counted: Tensor, given: dict[str, Any]) -> Tensor:
    """Task loss and the two losses of every layer, from what the routers of a plain forward returned."""
    returned: list[tuple[Tensor, Tensor]] = []
    layers = sparse_layers(model).values()
    hooks = [x.mlp.gate.register_forward_hook(lambda _, __, out: returned.append((out[0], out[2]))) for x in layers]
    loss = model(**given).loss
    for hook in hooks:
        hook.remove()
    for logits, experts in returned:
        even = load_balance_loss(logits.softmax(-1), experts, counted.flatten())
        loss = loss + (balance.load_balance * even + balance.z_loss * z_loss(logits, counted.flatten())) / len(returned)
    return loss


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", CHECKPOINTING)
@pytest.mark.parametrize("top_k", [1, 2])
def test_gradients_are_those_of_the_plain_sum_of_losses(
    mixture: Any, kind: str, reentrant: bool | None, top_k: int
) -> None:
    balance = Balance(load_balance=0.7, z_loss=0.3)
    calls = []
    for seed, padded in ((0, 0), (1, 3)):  # two forwards before the backward
        tokens, ids = some_tokens(seed=seed), some_tokens(seed=seed + 5) % 6 - 1
        mask = torch.ones_like(tokens)
        mask[0, :padded] = 0
        calls.append({"input_ids": tokens, "labels": tokens, "family_ids": ids, "attention_mask": mask})
    plain = mixture(kind, num_experts_per_tok=top_k).train()
    attach(plain, Routing.HYBRID)
    sum(outside(plain, balance, c["attention_mask"].bool(), c) for c in calls).backward()
    ours = mixture(kind, num_experts_per_tok=top_k).train()
    if reentrant is not None:
        ours.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    attach(ours, Routing.HYBRID, balance)
    sum(ours(**c).loss for c in calls).backward()
    for name, expected in gradients(plain).items():
        assert (gradients(ours)[name] - expected).abs().max() <= 2e-6 * expected.abs().max(), name
    assert gradients(ours).keys() == gradients(plain).keys()
    without = mixture(kind, num_experts_per_tok=top_k).train()
    attach(without, Routing.HYBRID)
    sum(without(**c).loss for c in calls).backward()
    for layer in (1, 2):
        name = f"model.layers.{layer}.mlp.gate.weight"
        assert not torch.allclose(gradients(without)[name], gradients(plain)[name], rtol=1e-2, atol=1e-4)


def test_balance_without_strength_changes_no_bit(mixture: Any, kind: str) -> None:
    tokens, results = some_tokens(), []
    for balance in (None, Balance()):
        model = mixture(kind).train()
        attach(model, Routing.HYBRID, balance)
        out = model(tokens, labels=tokens, family_ids=tokens % 5)
        out.loss.backward()
        results.append((out.logits, *gradients(model).values()))
    assert all(map(torch.equal, *results))


def test_losses_and_bias_are_for_training_only(mixture: Any, kind: str) -> None:
    model, tokens = mixture(kind).eval(), some_tokens()
    stock = model(tokens).logits
    balance = Balance(1.0, 1.0, bias_LE=torch.eye(5)[:2] * 9)
    attach(model, Routing.HYBRID, balance)
    assert model(tokens).logits.equal(stock)
    assert not balance.loads.take().numel()
    assert not model.train()(tokens).logits.equal(stock)


def test_the_bias_of_a_layer_moves_the_picks_of_that_layer_alone(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens, bias = mixture(kind).train(), some_tokens(), torch.zeros(2, 5)
    bias[1, 4] = 9.0
    with watch(model) as stock:
        model(tokens)
    attach(model, Routing.TOPK, Balance(bias_LE=bias))
    with watch(model) as seen:
        model(tokens)
    assert seen[0].equal(stock[0])
    assert (seen[1] == 4).any(-1).all()
    assert not (stock[1] == 4).any(-1).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_finds_the_bias_of_its_forward(mixture: Any, kind: str, reentrant: bool) -> None:
    tokens, results = some_tokens(), []
    for checkpointing in (False, True):
        model, balance = mixture(kind).train(), Balance(bias_LE=torch.eye(5)[:2] * 9)
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        attach(model, Routing.TOPK, balance)
        loss = model(tokens, labels=tokens).loss
        balance.bias_LE = torch.eye(5)[2:4] * 9
        loss.backward()
        results.append(gradients(model))
    torch.testing.assert_close(*results)


# Loads


def counted_by_hand(picks: list[Tensor], counted: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    out = torch.zeros(len(picks), num_groups, 5, dtype=torch.long)
    for layer, chosen in enumerate(picks):
        for token, group, use in zip(chosen.flatten(0, 1), groups.flatten(), counted.flatten(), strict=True):
            for expert in token:
                out[layer, group, expert] += int(use)
    return out


@pytest.mark.parametrize("reentrant", CHECKPOINTING)
def test_loads_are_the_picks_of_counted_tokens_once_whatever_is_recomputed(
    mixture: Any, kind: str, watch: Any, reentrant: bool | None
) -> None:
    model, tokens, groups = mixture(kind).train(), some_tokens(), some_tokens(seed=2) % 4 - 1
    if reentrant is not None:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    balance = Balance(0.1, loads=Loads(num_groups=3))
    attach(model, Routing.HYBRID, balance)
    given = {"labels": tokens, "family_ids": tokens % 5, "group_ids": groups}
    with watch(model) as picks:
        losses = [model(tokens, **given).loss for _ in range(2)]
    sum(losses).backward()
    expected = counted_by_hand(picks[:2], groups >= 0, groups.clamp(min=0), 3)
    assert balance.loads.take().equal(2 * expected)
    model(tokens, counted=groups == 1, **given)
    assert balance.loads.take().equal(counted_by_hand(picks[:2], groups == 1, groups.clamp(min=0), 3))
    assert not balance.loads.take().numel()


def test_padding_of_an_attention_mask_is_not_counted(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens, balance = mixture(kind).train(), some_tokens(), Balance()
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    attach(model, Routing.TOPK, balance)
    with watch(model) as picks:
        model(tokens, attention_mask=mask)
    assert balance.loads.take().equal(counted_by_hand(picks, mask.bool(), torch.zeros_like(tokens), 1))
    model(tokens)
    assert balance.loads.take().sum() == 2 * tokens.numel() * 2


def test_picks_that_carry_nothing_are_not_counted(mixture: Any, kind: str) -> None:
    model, tokens, balance = mixture(kind).train(), some_tokens(), Balance()
    attach(model, Routing.LANGUAGE, balance)
    ids = torch.full_like(tokens, 3)
    ids[1] = -1
    model(tokens, family_ids=ids)
    loads = balance.loads.take()
    assert (loads.sum(-1) == 7 * 1 + 7 * 2).all()
    assert (loads[:, 0, 3] >= 7).all()


def test_a_wrong_shape_of_counted_tokens_or_groups_raises(mixture: Any) -> None:
    model, tokens = mixture("qwen3").train(), some_tokens()
    attach(model, Routing.TOPK, Balance())
    for name in ("counted", "group_ids"):
        with pytest.raises(ValueError, match=name):
            model(tokens, **{name: torch.ones(2, 6, dtype=torch.long)})


def test_training_on_the_losses_evens_out_a_lopsided_router(mixture: Any) -> None:
    tokens, most = some_tokens(8, 16), {}
    for strength in (0.0, 1.0):
        model, balance = mixture("qwen3").train(), Balance(load_balance=strength)
        attach(model, Routing.TOPK, balance)
        steps = torch.optim.Adam([x.mlp.gate.weight for x in sparse_layers(model).values()], lr=2e-2)
        for _ in range(40):
            steps.zero_grad()
            balance.loads.take()
            F.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
            steps.step()
        loads = balance.loads.take()[:, 0].float()
        most[strength] = (loads.max(-1).values / loads.mean(-1)).max().item()
    assert most[1.0] < 1.3 < most[0.0]


def test_a_copied_model_counts_for_itself(mixture: Any) -> None:
    model, tokens, balance = mixture("qwen3").train(), some_tokens(), Balance()
    attach(model, Routing.TOPK, balance)
    copy.deepcopy(model)(tokens)
    assert not balance.loads.take().numel()
    with routing(model, Routing.TOPK):
        model(tokens)
    assert balance.loads.take().numel()
