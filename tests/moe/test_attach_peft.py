"""peft: LoRA on the fused expert tensors and on the router, with attaching before and after wrapping."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from moe.inputs import some_tokens
from polyclinic.moe.attach import Routing, attach, detach, is_attached, routers_of, routing, sparse_layers
from polyclinic.moe.balance import Balance

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
BEFORE = pytest.mark.parametrize("before", [True, False])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def wrapped(model: Any, before: bool, mode: Routing = Routing.HYBRID, **lora: Any) -> PeftModel:
    """Give a model LoRA of which no part is zero, and family routing before or after."""
    if before:
        attach(model, mode)
    config = LoraConfig(r=2, lora_alpha=4, **{"target_modules": [], "target_parameters": EXPERTS} | lora)
    out = get_peft_model(model, config)
    if not before:
        attach(out, mode)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in out.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return out


def plain(mixture: Any, kind: str, weights: dict[str, Tensor]) -> Any:
    model = mixture(kind)
    model.load_state_dict(weights, strict=True)
    attach(model, Routing.HYBRID)
    return model


@BEFORE
def test_gradients_reach_lora_on_the_experts_and_nothing_else(mixture: Any, kind: str, before: bool) -> None:
    model, tokens = wrapped(mixture(kind), before).train(), some_tokens()
    model(input_ids=tokens, labels=tokens, family_ids=tokens % 5).loss.backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    lora = {n for n, _ in model.named_parameters() if "lora_" in n}
    assert with_gradient == lora
    assert len(lora) == 2 * 2 * 2  # layers, tensors, A and B


@BEFORE
def test_ids_count_through_lora_as_they_do_in_the_merged_model(mixture: Any, kind: str, before: bool) -> None:
    model, tokens = wrapped(mixture(kind), before).eval(), some_tokens()
    ids = tokens % 6 - 1
    ours, free = model(input_ids=tokens, family_ids=ids).logits, model(input_ids=tokens).logits
    with routing(model, families=[4, 1]):
        block = model(input_ids=tokens).logits
    merged = model.merge_and_unload()
    assert is_attached(merged)
    detach(merged)
    reference = plain(mixture, kind, merged.state_dict())
    torch.testing.assert_close(ours, reference(tokens, family_ids=ids).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(free, merged(tokens).logits, rtol=1e-4, atol=1e-4)
    with routing(reference, families=[4, 1]):
        torch.testing.assert_close(block, reference(tokens).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, free, atol=1e-2)
    assert not torch.allclose(block, free, atol=1e-2)


@BEFORE
def test_detaching_a_wrapped_model_gives_plain_top_k_and_stock_classes(mixture: Any, kind: str, before: bool) -> None:
    stock = mixture(kind)
    classes = {name: type(m) for name, m in stock.named_modules()}
    model, tokens = wrapped(mixture(kind), before).eval(), some_tokens()
    free = model(input_ids=tokens).logits
    detach(model)
    assert not is_attached(model)
    assert torch.equal(model(input_ids=tokens).logits, free)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=tokens).logits, stock(tokens).logits)
    bare = model.unload()
    assert {name: type(m) for name, m in bare.named_modules()} == classes
    assert list(bare.state_dict()) == list(stock.state_dict())


@BEFORE
@pytest.mark.parametrize("lora", [{"target_parameters": ["mlp.gate.weight"]}, {"modules_to_save": ["gate"]}])
def test_ids_reach_a_router_that_is_wrapped_itself(
    mixture: Any, kind: str, before: bool, lora: dict[str, Any], watch: Any
) -> None:
    model, tokens = wrapped(mixture(kind), before, **lora).train(), some_tokens()
    ids = tokens % 5
    with watch(model) as seen:
        model(input_ids=tokens, labels=tokens, family_ids=ids).loss.backward()
    assert len(seen) == 2
    assert all((picks == ids[..., None]).any(-1).all() for picks in seen)
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(".gate." in n for n in trained)
    assert all("lora_" in n or "modules_to_save" in n for n in trained)
    detach(model)
    routers = [router for layer in sparse_layers(model).values() for router in routers_of(layer)]
    assert routers
    assert not any(hasattr(type(router), "polyclinic_stock") for router in routers)


def test_lora_under_checkpointing_and_balance_has_the_gradients_without_checkpointing(mixture: Any, kind: str) -> None:
    tokens, results = some_tokens(), []
    for checkpointing in (False, True):
        model = mixture(kind)
        attach(model, Routing.HYBRID, Balance(0.5, 0.1))
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], target_parameters=EXPERTS))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        sum(model(input_ids=tokens, labels=tokens, family_ids=i).loss for i in (tokens % 5, tokens % 3)).backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
