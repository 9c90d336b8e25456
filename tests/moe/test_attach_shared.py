"""A model that others hold too: threads that call it at once, and accelerate that spreads it over devices."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules
from torch import Tensor, nn
from transformers import PreTrainedModel

from moe.inputs import ids_like, some_tokens
from polyclinic.moe.attach import Routing, attach, detach, is_attached, routing, sparse_layers

PARTS = ["embed_tokens", "rotary_emb", "layers.0", "layers.1", "layers.2", "norm"]


def spread(model: PreTrainedModel) -> None:
    """Do what `device_map` does with several devices."""
    devices = {**{f"model.{part}": "cpu" for part in PARTS}, "lm_head": "cpu"}
    dispatch_model(model, devices, force_hooks=True)


def offload(model: PreTrainedModel) -> None:
    """Leave the weights behind until a module is called."""
    cpu_offload(model, execution_device=torch.device("cpu"))


SPREAD = pytest.mark.parametrize("spread_out", [spread, offload])


# Threads


class Meeting:
    """Lets the first thread that asks wait, inside a layer, until another has made its whole forward."""

    def __init__(self) -> None:
        self.is_inside, self.is_done = threading.Event(), threading.Event()

    def hold(self, *_: Any) -> None:
        if not self.is_inside.is_set():
            self.is_inside.set()
            assert self.is_done.wait(60)


@torch.no_grad()
@pytest.mark.parametrize("other", [[4, 1], [-1, 2], None])
def test_threads_that_share_a_model_keep_their_own_ids(mixture: Any, kind: str, other: list[int] | None) -> None:
    model, tokens, meeting = mixture(kind), some_tokens(), Meeting()
    attach(model, Routing.HYBRID)

    def answer(families: list[int] | None) -> Tensor:
        logits: Tensor = model(tokens, family_ids=None if families is None else ids_like(tokens, *families)).logits
        return logits

    alone = [answer([3, 0]), answer(other)]
    assert not torch.equal(*alone)
    sparse_layers(model)[1].mlp.gate.register_forward_pre_hook(meeting.hold)
    got: list[Tensor] = []
    with torch.no_grad():
        first = threading.Thread(target=lambda: got.append(answer([3, 0])))
        first.start()
        assert meeting.is_inside.wait(60)
        assert torch.equal(answer(other), alone[1])
        meeting.is_done.set()
        first.join(60)
    assert torch.equal(got[0], alone[0])


def in_a_thread(call: Callable[[], Any]) -> Any:
    """Return what a call in another thread returns or raises."""
    out: list[Any] = []

    def run() -> None:
        try:
            out.append(call())
        except ValueError as err:
            out.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return out[0]


def test_a_block_holds_in_every_thread_and_a_second_thread_may_not_open_one(mixture: Any) -> None:
    model, tokens = mixture("qwen3").requires_grad_(False), some_tokens()
    attach(model)

    def forced() -> Tensor:
        with routing(model, families=[0, 1]):
            logits: Tensor = model(tokens).logits
        return logits

    with routing(model, families=[4, 2]):
        expected = model(tokens).logits
        assert torch.equal(in_a_thread(lambda: model(tokens).logits), expected)  # so streamed generation is routed
        assert "another thread" in str(in_a_thread(forced))
        assert torch.equal(model(tokens).logits, expected)
        with routing(model, Routing.TOPK):
            pass
        assert "another thread" in str(in_a_thread(forced))
    assert torch.equal(in_a_thread(forced), forced())


# Spread over devices


@SPREAD
@pytest.mark.parametrize("before", [True, False])
def test_ids_count_in_a_model_that_accelerate_has_spread(
    mixture: Any, kind: str, before: bool, spread_out: Callable[[PreTrainedModel], None]
) -> None:
    plain, model, tokens = mixture(kind), mixture(kind), some_tokens()
    stock = plain(tokens).logits
    classes = {name: type(m) for name, m in plain.named_modules()}
    attach(plain, Routing.HYBRID)
    if before:
        attach(model, Routing.HYBRID)
    spread_out(model)
    if not before:
        attach(model, Routing.HYBRID)
    forced = model(tokens, family_ids=ids_like(tokens, 3, -1)).logits
    assert torch.equal(forced, plain(tokens, family_ids=ids_like(tokens, 3, -1)).logits)
    assert not torch.allclose(forced[0], stock[0])
    assert torch.equal(model(tokens).logits, stock)
    detach(model)
    assert torch.equal(model(tokens).logits, stock)
    remove_hook_from_submodules(model)
    assert {name: type(m) for name, m in model.named_modules()} == classes


def test_a_model_that_was_spread_and_gathered_again_takes_ids(mixture: Any, kind: str) -> None:
    plain, model, tokens = mixture(kind), mixture(kind), some_tokens()
    spread(model)
    remove_hook_from_submodules(model)  # leaves the forward of before on every module
    for each in (plain, model):
        attach(each, Routing.HYBRID)
    answers = [m(tokens, family_ids=ids_like(tokens, 3, 1)).logits for m in (plain, model)]
    assert torch.equal(*answers)
    detach(model)
    assert torch.equal(model(tokens).logits, plain(tokens).logits)


@pytest.mark.parametrize("which", ["layer", "router", "shared expert"])
@pytest.mark.parametrize("attached", [True, False])
def test_a_forward_put_in_place_of_a_modules_own_is_refused_and_nothing_changes(
    mixture: Any, which: str, attached: bool
) -> None:
    model, tokens = mixture("qwen2"), some_tokens()
    stock = model(tokens).logits
    if attached:
        attach(model, Routing.HYBRID)
    layer = sparse_layers(model)[2]
    module: nn.Module = {"layer": layer, "router": layer.mlp.gate, "shared expert": layer.mlp.shared_expert}[which]
    own = module.forward
    module.forward = lambda *args, **kwargs: own(*args, **kwargs)
    classes = {name: type(m) for name, m in model.named_modules()}
    with pytest.raises(ValueError, match=f"the forward of a {type(module).__name__} has been replaced"):
        (detach if attached else attach)(model)
    assert {name: type(m) for name, m in model.named_modules()} == classes
    assert is_attached(model) is attached
    del module.forward
    (detach if attached else attach)(model)
    assert torch.equal(model(tokens).logits, stock)
