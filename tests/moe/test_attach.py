"""Family ids in stock mixtures: what they change, when they count, and that nothing stays behind."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from moe.inputs import ids_like, some_tokens
from polyclinic.errors import CheckpointError
from polyclinic.moe.attach import Routing, attach, detach, is_attached, routing, sparse_layers
from polyclinic.moe.checkpoint import load_model

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def has_family(picks: Tensor, families: Tensor) -> bool:
    """Say whether every token's picks (rows, tokens, k) hold its family (rows, tokens)."""
    return bool((picks == families[..., None]).any(-1).all())


def unpicked(model: PreTrainedModel, tokens: Tensor, watch: Any) -> int:
    """Return the expert that plain top-k leaves out most often, so that forcing it shows."""
    with watch(model) as seen:
        model(tokens)
    return int(torch.bincount(torch.cat([p.flatten() for p in seen]), minlength=5).argmin())


# What ids change


def test_attached_without_ids_the_model_is_the_stock_model_bit_for_bit(mixture: Any, kind: str) -> None:
    model, tokens = mixture(kind), some_tokens()
    stock = model(tokens, labels=tokens)
    for mode in Routing:
        attach(model, mode)
        for training in (True, False):
            ours = model.train(training)(tokens, labels=tokens)
            assert torch.equal(ours.logits, stock.logits)
            assert torch.equal(ours.loss, stock.loss)
        detach(model)


def test_every_token_goes_to_the_expert_of_its_own_id(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens()
    attach(model, Routing.HYBRID)
    ids = torch.arange(14).reshape(2, 7) % 5
    with watch(model) as seen:
        model(tokens, family_ids=ids)
    assert len(seen) == 2  # the two sparse layers
    assert all(has_family(picks, ids) for picks in seen)


def test_tokens_without_a_family_are_routed_as_in_the_stock_model(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens()
    family = unpicked(model, tokens, watch)
    with watch(model) as stock_picks:
        stock = model(tokens).logits
    attach(model, Routing.HYBRID)
    ids = ids_like(tokens, -1, family)
    with watch(model) as picks:
        ours = model(tokens, family_ids=ids).logits
    assert all(torch.equal(a[0], b[0]) for a, b in zip(picks, stock_picks, strict=True))
    torch.testing.assert_close(ours[0], stock[0])
    assert not torch.allclose(ours[1], stock[1])


def test_a_family_changes_no_token_before_its_own(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens(rows=1)
    family = unpicked(model, tokens, watch)
    stock = model(tokens).logits
    attach(model, Routing.HYBRID)
    ids = torch.tensor([[-1, -1, -1, family, family, family, -1]])
    ours = model(tokens, family_ids=ids).logits
    torch.testing.assert_close(ours[:, :3], stock[:, :3])
    assert not torch.allclose(ours[:, 3:], stock[:, 3:])


def test_a_forced_expert_and_its_router_row_are_trained(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens(rows=1)
    family = unpicked(model, tokens, watch)
    attach(model)
    model.train()(tokens, labels=tokens, family_ids=ids_like(tokens, family)).loss.backward()
    for layer in sparse_layers(model).values():
        assert layer.mlp.experts.gate_up_proj.grad[family].abs().max() > 0
        assert layer.mlp.gate.weight.grad[family].abs().max() > 0


# When ids count


@pytest.mark.parametrize(
    ("mode", "training", "count"),
    [
        (Routing.TOPK, True, False),
        (Routing.TOPK, False, False),
        (Routing.HYBRID_TRAINING, True, True),
        (Routing.HYBRID_TRAINING, False, False),
        (Routing.HYBRID, True, True),
        (Routing.HYBRID, False, True),
        (Routing.LANGUAGE_TRAINING, True, True),
        (Routing.LANGUAGE_TRAINING, False, False),
        (Routing.LANGUAGE, True, True),
        (Routing.LANGUAGE, False, True),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward"])  # a wrapper may use the second
def test_the_mode_decides_whether_ids_count(
    mixture: Any, kind: str, watch: Any, mode: Routing, training: bool, count: bool, call: str
) -> None:
    model, tokens = mixture(kind).train(training), some_tokens(rows=1)
    ids = ids_like(tokens, unpicked(model, tokens, watch))
    stock = model(tokens).logits
    attach(model, mode)
    assert torch.equal(getattr(model, call)(tokens, family_ids=ids).logits, stock) is not count
    with routing(model, mode, families=[int(ids[0, 0])]):
        assert torch.equal(getattr(model, call)(input_ids=tokens).logits, stock) is not count


@pytest.mark.parametrize("shape", [(2, 6), (1, 7), (2,), (14,), (2, 7, 1)])
def test_ids_of_another_shape_than_the_tokens_raise(mixture: Any, kind: str, shape: tuple[int, ...]) -> None:
    model = mixture(kind)
    attach(model, Routing.HYBRID)
    with pytest.raises(ValueError, match="family_ids"):
        model(some_tokens(), family_ids=torch.zeros(shape, dtype=torch.long))
    model(some_tokens())  # and the ids that failed are gone


@pytest.mark.parametrize("mode", [Routing.HYBRID, Routing.LANGUAGE])
@pytest.mark.parametrize("reentrant", [True, False, None])
def test_two_forwards_before_one_backward_keep_their_own_ids_under_checkpointing(
    mixture: Any, kind: str, reentrant: bool | None, mode: Routing
) -> None:
    tokens = some_tokens()
    first, second = ids_like(tokens, 0, 1), ids_like(tokens, 3, 4)

    def gradients(checkpointing: bool, *ids: Tensor) -> list[Tensor]:
        model = mixture(kind).train()
        if checkpointing:
            choice = None if reentrant is None else {"use_reentrant": reentrant}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=choice)
        attach(model, mode)
        losses = [model(tokens, labels=tokens, family_ids=i).loss for i in ids]
        with routing(model, Routing.TOPK):  # what holds now does not reach a forward of before
            sum(losses).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    plain = gradients(False, first, second)
    torch.testing.assert_close(gradients(True, first, second), plain, rtol=0, atol=0)
    confused = gradients(False, second, second)
    assert not all(torch.allclose(a, b) for a, b in zip(confused, plain, strict=True))


# Generation


@pytest.mark.parametrize(
    ("more", "rows"),
    [({}, 1), ({"num_beams": 3}, 3), ({"do_sample": True, "num_return_sequences": 2}, 2)],
)
@pytest.mark.parametrize("mode", [Routing.HYBRID, Routing.LANGUAGE])
def test_generation_routes_every_token_of_a_sequence_to_its_family(
    mixture: Any, kind: str, watch: Any, more: dict[str, Any], rows: int, mode: Routing
) -> None:
    model, tokens = mixture(kind), some_tokens()
    tokens[0, :3] = 0
    attach(model)
    with watch(model) as seen, routing(model, mode, [4, 1], rows_per_family=rows):
        model.generate(tokens, attention_mask=(tokens != 0).long(), **GREEDY | more)
    assert len(seen) == 2 * 4  # sparse layers x (prefill and three decodes)
    assert seen[0].shape[:2] == (2 * rows, 7)
    assert seen[-1].shape[:2] == (2 * rows, 1)
    for picks in seen:
        families = torch.tensor([4, 1]).repeat_interleave(rows)
        assert has_family(picks, families[:, None].expand(picks.shape[:2]))


@pytest.mark.parametrize("beams", [1, 2])
def test_mixed_families_in_a_left_padded_batch_generate_what_each_row_does_alone(
    mixture: Any, kind: str, beams: int
) -> None:
    model, tokens, families = mixture(kind), some_tokens(rows=3), [4, -1, 2]
    tokens[0, :3] = tokens[2, :1] = 0
    attach(model)
    with routing(model, families=families, rows_per_family=beams):
        mask = (tokens != 0).long()
        together = model.generate(tokens, attention_mask=mask, num_beams=beams, **GREEDY)[:, 7:]
    for row, family, got in zip(tokens, families, together, strict=True):
        with routing(model, families=[family], rows_per_family=beams):
            alone = model.generate(row[row != 0][None], num_beams=beams, **GREEDY)[0, -4:]
        assert torch.equal(got, alone)


def test_mixed_families_in_a_batch_equal_each_row_alone(mixture: Any, kind: str) -> None:
    model, tokens, families = mixture(kind), some_tokens(rows=4), [4, -1, 2, 2]
    attach(model)
    with routing(model, families=families):
        together = model(tokens).logits
        embedded = model(inputs_embeds=model.get_input_embeddings()(tokens)).logits
    torch.testing.assert_close(embedded, together)
    for row, family, got in zip(tokens, families, together, strict=True):
        with routing(model, families=[family]):
            torch.testing.assert_close(got, model(row[None]).logits[0])


def test_generation_without_families_is_that_of_the_stock_model(mixture: Any, kind: str) -> None:
    model, tokens = mixture(kind), some_tokens()
    stock = model.generate(tokens, **GREEDY)
    attach(model)
    assert torch.equal(model.generate(tokens, **GREEDY), stock)
    with routing(model):
        assert torch.equal(model.generate(tokens, **GREEDY), stock)


def test_ids_of_a_call_win_over_the_families_of_the_block(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens()
    attach(model)
    ids = ids_like(tokens, 3, 2)
    with watch(model) as seen, routing(model, families=[0, 1]):
        model(tokens, family_ids=ids)
    assert all(has_family(picks, ids) for picks in seen)


def test_a_routing_block_ends_with_the_state_before_it(mixture: Any, kind: str, watch: Any) -> None:
    model, tokens = mixture(kind), some_tokens(rows=1)
    family = unpicked(model, tokens, watch)
    stock = model(tokens).logits
    attach(model)
    with routing(model, families=[family]):
        forced = model(tokens).logits
        with routing(model, Routing.TOPK, [family, family], 2):
            assert torch.equal(model(tokens).logits, stock)
        with pytest.raises(IndexError), routing(model, Routing.TOPK):
            model(torch.tensor([[999]]))
        assert torch.equal(model(tokens).logits, forced)
    assert torch.equal(model(tokens).logits, stock)
    assert not torch.equal(forced, stock)


@pytest.mark.parametrize("families", [[], [5], [0, -2], [0, 1, 2]])
def test_families_that_do_not_fit_experts_or_sequences_raise(mixture: Any, families: list[int]) -> None:
    model = mixture("qwen3")
    attach(model)
    with pytest.raises(ValueError, match="famil"), routing(model, families=families):
        model(some_tokens())


@pytest.mark.parametrize(("rows_per_family", "rows"), [(1, 4), (1, 1), (2, 2), (2, 6), (4, 4)])
def test_rows_that_are_not_those_of_the_families_raise_and_name_both_numbers(
    mixture: Any, rows_per_family: int, rows: int
) -> None:
    model = mixture("qwen3")
    attach(model)
    message = f"2 families with rows_per_family={rows_per_family} for {rows} sequences"
    with pytest.raises(ValueError, match=message), routing(model, Routing.HYBRID, [0, 1], rows_per_family):
        model(some_tokens(rows))


# Stock behaviour of an attached model


@pytest.mark.parametrize("asked_before", [True, False])
def test_router_logits_and_hidden_states_come_out_as_in_the_stock_model(
    mixture: Any, kind: str, asked_before: bool
) -> None:
    model, tokens = mixture(kind), some_tokens()
    asked = {"output_router_logits": True, "output_hidden_states": True}
    stock = mixture(kind)(tokens, **asked)
    if asked_before:
        model(tokens, **asked)
    attach(model, Routing.HYBRID)
    ours = model(tokens, **asked)
    assert len(ours.router_logits) == 2
    assert torch.equal(torch.stack(ours.router_logits), torch.stack(stock.router_logits))
    assert torch.equal(torch.stack(ours.hidden_states), torch.stack(stock.hidden_states))
    assert torch.equal(ours.aux_loss, stock.aux_loss)
    forced = model(tokens, family_ids=ids_like(tokens, 0, 1), **asked)
    assert torch.equal(forced.router_logits[0], stock.router_logits[0])  # the router speaks before it is overruled


def test_an_attached_model_is_saved_as_the_stock_checkpoint(mixture: Any, kind: str, tmp_path: Path) -> None:
    model = mixture(kind)
    model.save_pretrained(tmp_path / "stock")
    attach(model)
    model(some_tokens(), family_ids=some_tokens() % 5)
    model.save_pretrained(tmp_path / "attached")
    for path in sorted((tmp_path / "stock").iterdir()):
        assert (tmp_path / "attached" / path.name).read_bytes() == path.read_bytes()
    assert torch.equal(load_model(tmp_path / "attached")(some_tokens()).logits, model(some_tokens()).logits)


def test_a_copy_of_an_attached_model_has_its_own_switch(mixture: Any, kind: str) -> None:
    model, tokens = mixture(kind), some_tokens(rows=1)
    attach(model)
    stock, twin = model(tokens).logits, copy.deepcopy(model)
    with routing(twin, families=[0]), routing(model, Routing.TOPK):
        assert torch.equal(model(tokens).logits, stock)
        forced = twin(tokens).logits
    with routing(model, families=[0]):
        assert torch.equal(model(tokens).logits, forced)


# On and off


def layout(model: PreTrainedModel) -> dict[str, tuple[type, set[str], int]]:
    """Class, attributes and number of forward hooks of every module."""
    return {
        name: (type(m), set(vars(m)), len(m._forward_pre_hooks) + len(m._forward_hooks))
        for name, m in model.named_modules()
    }


def test_detaching_leaves_the_stock_model_and_nothing_else(mixture: Any, kind: str) -> None:
    model, tokens = mixture(kind), some_tokens()
    before, stock = layout(model), model(tokens).logits
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attach(model, Routing.HYBRID)
    assert is_attached(model)
    assert layout(model) != before
    model(tokens, family_ids=ids_like(tokens, 0, 1))
    detach(model)
    assert not is_attached(model)
    assert layout(model) == before
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(tokens).logits, stock)


def test_attached_classes_are_stock_classes_by_name_and_kind(mixture: Any, kind: str) -> None:
    model = mixture(kind)
    stock = {i: (type(layer), type(layer.mlp.gate)) for i, layer in sparse_layers(model).items()}
    assert set(stock) == {1, 2}
    attach(model)
    for index, layer in sparse_layers(model).items():
        for ours, theirs in zip((layer, layer.mlp.gate), stock[index], strict=True):
            assert isinstance(ours, theirs)
            assert type(ours).__name__ == theirs.__name__
            assert type(ours) is not theirs


def test_attaching_twice_raises_and_a_detached_model_can_be_attached_again(mixture: Any, kind: str) -> None:
    model = mixture(kind)
    attach(model)
    with pytest.raises(ValueError, match="already"):
        attach(model)
    detach(model)
    attach(model)


def test_a_dense_model_cannot_be_attached(dense: Any, kind: str) -> None:
    model = dense(kind)
    before = layout(model)
    with pytest.raises(CheckpointError, match="no experts") as caught:
        attach(model)
    assert caught.value.exit_code == 4
    assert layout(model) == before
