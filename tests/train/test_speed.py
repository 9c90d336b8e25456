"""Speed: operations counted by hand, a rate that is measured, and what a log line makes of them."""

import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from polyclinic.moe.checkpoint import load_model
from polyclinic.train import speed
from polyclinic.train.speed import Speedometer, active_parameters, operations_per_token, peak_memory, product_rate


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_active_parameters_are_the_dense_parents_and_one_more_expert_and_router_a_layer(
    mixtures: dict[str, Path], kind: str
) -> None:
    """Two picks of seven experts, each as wide as the parent's own feed-forward part, in two layers."""
    mixture, parent = load_model(mixtures[kind]), load_model(mixtures[kind].with_name(f"{kind}-dense"))
    hidden, inner = parent.config.hidden_size, parent.config.intermediate_size
    assert active_parameters(parent) == sum(p.numel() for p in parent.parameters())  # its head is its table
    more = 2 * (3 * hidden * inner + mixture.config.num_experts * hidden)
    more += 2 * hidden * (kind == "qwen2")  # the gate of its silent shared expert
    assert active_parameters(mixture) == active_parameters(parent) + more


def test_a_table_that_is_not_the_head_multiplies_nothing(mixtures: dict[str, Path]) -> None:
    model = load_model(mixtures["qwen3"].with_name("qwen3-dense"))
    tied = active_parameters(model)
    model.get_output_embeddings().weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    assert active_parameters(model) == tied


def test_operations_are_those_that_torch_counts_but_for_vectors(mixtures: dict[str, Path]) -> None:
    """Torch counts the products of a forward; forward and backward are three times as many."""
    length, model = 48, load_model(mixtures["qwen3"].with_name("qwen3-dense"))
    model.set_attn_implementation("eager")
    tokens = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    vectors = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    counted = 3 * counter.get_total_flops() / length
    assert operations_per_token(model, length) - 6 * vectors == pytest.approx(counted, rel=1e-9)


@pytest.mark.soak  # timed: other work on the machine decides it
def test_the_rate_of_the_machine_is_that_of_a_product_timed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.02)
    monkeypatch.setitem(speed.WIDTHS, "cpu", 256)
    state = torch.get_rng_state()
    one, two = torch.randn(256, 256), torch.randn(256, 256)
    torch.set_rng_state(state)
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        one @ two
        times.append(time.perf_counter() - begin)
    product_rate.cache_clear()
    rate = product_rate("cpu", torch.float32, 1)
    assert 0.2 < rate / (2 * 256**3 / min(times)) < 5
    assert torch.get_rng_state().equal(state)
    assert product_rate("cpu", torch.float32, 1) == rate
    product_rate.cache_clear()


def test_a_reading_is_tokens_operations_and_share_since_the_last(
    mixtures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, model = [100.0], load_model(mixtures["qwen3"])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "product_rate", lambda *_: 2e12)
    meter = Speedometer(model, 48, 96, torch.float32)
    meter.start("cpu", 10, 3)
    now[0] += 4
    per_token = operations_per_token(model, 48)
    first = meter.read(12)
    assert first["tokens_per_second"] == 2 * 96 / 4
    assert first["tflops"] == pytest.approx(48 * per_token / 1e12, rel=1e-3)
    assert first["mfu"] == pytest.approx(48 * per_token / 6e12, rel=1e-3)  # three processes
    now[0] += 5
    meter.skip(3)
    assert meter.read(13)["tokens_per_second"] == 96 / 2
    assert meter.seconds_left(7, 48.0) == 14


def test_the_peak_of_memory_only_grows_and_is_what_the_process_held() -> None:
    before = peak_memory()
    held = torch.ones(100_000_000)
    assert 4e8 < peak_memory() < 1e11
    assert peak_memory() >= before
    del held
    assert peak_memory() >= 4e8
