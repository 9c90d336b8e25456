"""The shared expert of width 0 while attached: nothing to train or shard, nothing missing from the state."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from polyclinic.moe.attach import attach, detach, sparse_layers

NAMES = [f"{part}_proj.weight" for part in ("gate", "up", "down")]


def empties(model: PreTrainedModel) -> list[str]:
    return [name for name, p in model.named_parameters() if not p.numel()]


def tokens() -> torch.Tensor:
    return torch.arange(1, 8)[None]


def test_an_attached_model_has_no_empty_parameter_and_the_same_state_dict(mixture: Any) -> None:
    model = mixture("qwen2")
    before = {name: (t.shape, t.dtype) for name, t in model.state_dict().items()}
    assert empties(model) == [f"model.layers.{i}.mlp.shared_expert.{name}" for i in (1, 2) for name in NAMES]
    attach(model)
    assert empties(model) == []
    assert {name: (t.shape, t.dtype) for name, t in model.state_dict().items()} == before
    assert list(model.state_dict()) == list(before)


def test_a_state_dict_is_loaded_strictly_whether_attached_or_not(mixture: Any) -> None:
    stock, attached = mixture("qwen2", seed=1), mixture("qwen2", seed=2)
    attach(attached)
    attached.load_state_dict(stock.state_dict(), strict=True)
    assert attached(tokens()).logits.equal(stock(tokens()).logits)
    mixture("qwen2", seed=3).load_state_dict(attached.state_dict(), strict=True)


@pytest.mark.parametrize("move", [{"dtype": torch.bfloat16}, {"dtype": torch.float64}, {"device": "meta"}])
def test_a_model_moved_while_attached_is_that_moved_without(mixture: Any, move: dict[str, Any]) -> None:
    model, never = mixture("qwen2"), mixture("qwen2").to(**move)
    attach(model)
    model.to(**move)
    detach(model)
    ours, theirs = (dict(m.named_parameters()) for m in (model, never))
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        assert isinstance(parameter, nn.Parameter)
        expected = theirs[name]
        assert (parameter.shape, parameter.dtype, parameter.device) == (expected.shape, expected.dtype, expected.device)
    assert not [name for name, _ in model.named_buffers() if "shared_expert" in name]


def test_detaching_keeps_who_is_trained_and_the_training_switch(mixture: Any) -> None:
    model = mixture("qwen2").requires_grad_(False)
    attach(model)
    model.train()
    detach(model)
    assert not any(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_a_shared_expert_of_real_width_stays_a_trained_module(mixture: Any) -> None:
    model = mixture("qwen2", shared_expert_intermediate_size=16)
    before = {name: id(p) for name, p in model.named_parameters()}
    attach(model)
    assert {name: id(p) for name, p in model.named_parameters()} == before
    model(tokens(), labels=tokens(), family_ids=tokens() % 5).loss.backward()
    for layer in sparse_layers(model).values():
        assert layer.mlp.shared_expert.up_proj.weight.grad.abs().max() > 0


def test_training_gives_the_gradients_of_the_stock_model(mixture: Any) -> None:
    stock, attached = mixture("qwen2").train(), mixture("qwen2").train()
    attach(attached)
    for model in (stock, attached):
        model(tokens(), labels=tokens()).loss.backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in attached.named_parameters():
        assert torch.equal(parameter.grad, theirs[name].grad), name
