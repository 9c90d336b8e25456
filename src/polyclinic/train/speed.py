"""How fast a training computes, against what its machine can: operations, their rate, and memory."""

import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from polyclinic.moe import attach as routed

SECONDS = 0.3  # of products that are timed
WIDTHS = {"cpu": 1024, "cuda": 8192}  # of their matrices
GIGA, TERA = 1e9, 1e12
PASSES = 6  # operations per parameter and token: a multiplication and an addition, forward once and backward twice


def active_parameters(model: PreTrainedModel) -> int:
    """Return the parameters that multiply each token: all but the table of embeddings and the experts not picked."""
    count: int = sum(p.numel() for p in model.parameters())
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if table is not head:  # a tied table is the head, and multiplies there
        count -= table.numel()
    for layer in routed.sparse_layers(model).values():
        experts = sum(p.numel() for p in layer.mlp.experts.parameters())
        idle = model.config.num_experts - routed.routers_of(layer)[0].top_k
        count -= experts * idle // model.config.num_experts
    return count


def operations_per_token(model: PreTrainedModel, length: int) -> int:
    """Return the floating-point operations of one token, forward and backward, in rows of `length` tokens.

    6 N + 12 L H Q T of PaLM (arXiv 2204.02311), appendix B, with N the active parameters, L layers,
    H heads of width Q, T the length: all positions of a row, seen or masked, as dense attention
    computes them. Recomputation under gradient checkpointing is not work of the model.
    """
    config: Any = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention: int = 2 * PASSES * config.num_hidden_layers * config.num_attention_heads * width * length
    return PASSES * active_parameters(model) + attention


@cache
def product_rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """Return the operations per second of the fastest of the matrix products of 0.3 s, as measured here and now.

    `threads` only tells apart what was measured. No generator of the training is drawn from.
    """
    width, best, spent = WIDTHS.get(device, WIDTHS["cpu"]), 0.0, 0.0
    drawn = torch.Generator().manual_seed(0)
    one, two = (torch.randn(width, width, generator=drawn).to(device, dtype) for _ in range(2))
    _seconds(lambda: one @ two, device)  # the first sets up
    while spent < SECONDS:
        seconds = _seconds(lambda: one @ two, device)
        spent, best = spent + seconds, max(best, 2.0 * width**3 / seconds)
    return best


def _seconds(work: Callable[[], Tensor], device: str) -> float:
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return max(time.perf_counter() - begin, 1e-9)


def peak_memory() -> float:
    """Return the most memory held so far, in bytes: on a GPU what torch held there, else what the process held."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class Speedometer:
    """Turns steps and seconds into tokens per second, and those into a share of what the machine can."""

    def __init__(self, model: PreTrainedModel, length: int, step_tokens: int, dtype: torch.dtype) -> None:
        self._operations, self._step_tokens, self._dtype = operations_per_token(model, length), step_tokens, dtype
        self._device, self._clock, self._step = "cpu", time.perf_counter(), 0
        self._rate = 0.0

    def start(self, device: str, step: int, processes: int) -> None:
        """Measure the machine and start the clock at a step."""
        self._rate = processes * product_rate(device, self._dtype, torch.get_num_threads())
        self._clock, self._step = time.perf_counter(), step

    def skip(self, seconds: float) -> None:
        """Leave out time in which nothing was trained."""
        self._clock += seconds

    def seconds_left(self, steps: int, tokens_per_second: float) -> float:
        """Return how long some steps take at a speed."""
        return steps * self._step_tokens / max(tokens_per_second, 1e-9)

    def read(self, step: int) -> dict[str, float]:
        """Return the figures since the last reading, of all processes together."""
        now = time.perf_counter()
        tokens = (step - self._step) * self._step_tokens / max(now - self._clock, 1e-9)
        self._clock, self._step = now, step
        operations = tokens * self._operations
        return {
            "tokens_per_second": round(tokens, 1),
            "tflops": _digits(operations / TERA),
            "mfu": _digits(operations / self._rate),
        }


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
