"""What training a mixture takes, from its sizes alone: memory, steps, arithmetic and hours on GPUs.

Everything is a formula over the recipe and the parent's config.json; nothing is loaded and nothing measured here.
docs/results/train.md holds the formulas against measurement.
"""

from dataclasses import dataclass
from typing import Literal

from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.memory import (
    FP32,
    Memory,
    Parallel,
    Shape,
    memory,
    pieces_of_head,
    trained_parameters,
)
from polyclinic.train.schedule import steps_of
from polyclinic.train.stop import STATES_OF_ADAMW

# Dense peaks of an H100 SXM in TFLOP/s, as NVIDIA's data sheet states them: bf16 tensor cores; fp32 without TF32.
PEAKS = {"bf16": 989.0, "fp32": 67.0}
GPU_MEMORY, SHARE_OF_PEAK = 80.0, 0.4
GIGA, TERA, HOUR = 1e9, 1e12, 3600.0


@dataclass(frozen=True)
class Hardware:
    """What the plan is made for."""

    gpus: tuple[int, ...] = (1, 8, 64)
    gpu_memory: float = GPU_MEMORY  # GB of one GPU
    tflops: float | None = None  # peak of all products; None: that of an H100 by precision
    mfu: float = SHARE_OF_PEAK


@dataclass(frozen=True)
class Work:
    """Floating-point operations that one token takes in training, recomputed ones included."""

    products: float  # in the recipe's precision
    experts: float  # of routed experts, which stay in fp32

    @property
    def total(self) -> float:
        """Return their sum."""
        return self.products + self.experts


def work_of(shape: Shape, settings: MoeTrainingSection, pack_tokens: int) -> Work:
    """Return the operations of a token.

    6 a parameter that it meets, without the table it is looked up in, and 12 * layers * heads * head width * tokens of
    a pack for attention (PaLM, arXiv 2204.02311, appendix B): the mask of packs hides pairs, the kernel computes them.
    What is computed again costs its forward once more, 8 for 6: layers under gradient checkpointing, and a head that
    works in pieces.
    """
    layers = 8 if settings.gradient_checkpointing else 6
    head = 8 if pieces_of_head(shape, settings, pack_tokens)[0] > 1 or settings.gradient_checkpointing else 6
    experts = shape.sparse * shape.top_k * 3 * shape.hidden * shape.inner
    rest = shape.active - experts - shape.words * (1 if shape.tied else 2)
    attention = 2 * layers * shape.layers * shape.width * pack_tokens
    return Work(products=layers * rest + attention + head * shape.words, experts=layers * experts)


def seconds_per_token(work: Work, precision: Literal["fp32", "bf16"], hardware: Hardware) -> float:
    """Return the time of one token on one GPU at `mfu` of its peaks."""
    if hardware.tflops is not None:
        return work.total / (hardware.tflops * TERA * hardware.mfu)
    return (work.products / PEAKS[precision] + work.experts / PEAKS["fp32"]) / (TERA * hardware.mfu)


@dataclass(frozen=True)
class Row:
    """The plan for one number of GPUs and one way to share the work."""

    gpus: int
    parallel: Parallel
    memory: Memory
    fits: bool
    batch_packs: int  # with `accumulate`, the keys that share a step out among so many
    accumulate: int
    step_tokens: int
    steps: int | None  # None where the number of packs is not known
    tokens: int | None
    hours: float | None
    hours_per_billion: float


@dataclass(frozen=True)
class Plan:
    """Rows, and what holds for all of them."""

    shape: Shape
    settings: MoeTrainingSection
    pack_tokens: int
    hardware: Hardware
    trained: int
    work: Work
    checkpoint: int  # bytes of one
    rows: tuple[Row, ...]

    @property
    def checkpoints(self) -> int:
        """Return the bytes that a run needs on disk for checkpoints: those kept and one in the making."""
        return self.checkpoint * (self.settings.keep + 1)


def plan(shape: Shape, settings: MoeTrainingSection, pack_tokens: int, hardware: Hardware) -> Plan:
    """Work everything out."""
    work, trained = work_of(shape, settings, pack_tokens), trained_parameters(shape, settings.routing)
    forms = [(n, way) for n in hardware.gpus for way in _ways(n)]
    rows = tuple(_row(shape, settings, pack_tokens, hardware, trained, work, n, way) for n, way in forms)
    # As stop.checkpoint_bytes counts a model: weights once, AdamW's states of what is trained.
    checkpoint = FP32 * (shape.parameters + STATES_OF_ADAMW * trained)
    return Plan(shape, settings, pack_tokens, hardware, trained, work, checkpoint, rows)


def _ways(gpus: int) -> tuple[Parallel, ...]:
    return ("none",) if gpus == 1 else ("ddp", "fsdp")


def _row(
    shape: Shape,
    settings: MoeTrainingSection,
    pack_tokens: int,
    hardware: Hardware,
    trained: int,
    work: Work,
    gpus: int,
    parallel: Parallel,
) -> Row:
    settings = shared(settings, gpus)
    alone = settings.model_copy(update={"accumulate": settings.accumulate // gpus})  # what one of them computes
    needed = memory(shape, alone, pack_tokens, trained, parallel, gpus)
    step_tokens = settings.batch_packs * settings.accumulate * pack_tokens
    steps = None if settings.epochs is not None else steps_of(settings, 0, pack_tokens)
    tokens = None if steps is None else steps * step_tokens
    per_token = seconds_per_token(work, settings.precision, hardware) / gpus / HOUR
    hours = None if tokens is None else tokens * per_token
    fits = needed.total <= hardware.gpu_memory * GIGA
    return Row(
        gpus,
        parallel,
        needed,
        fits,
        settings.batch_packs,
        settings.accumulate,
        step_tokens,
        steps,
        tokens,
        hours,
        GIGA * per_token,
    )


def shared(settings: MoeTrainingSection, gpus: int) -> MoeTrainingSection:
    """Return the settings with the largest batches that share a step out among GPUs.

    A step of fewer packs than GPUs, or of none that divides, grows to the next multiple of them.
    """
    packs = settings.batch_packs * settings.accumulate
    for size in range(settings.batch_packs, 0, -1):
        if packs % (size * gpus) == 0:
            return settings.model_copy(update={"batch_packs": size, "accumulate": packs // size})
    return settings.model_copy(update={"batch_packs": 1, "accumulate": -(-packs // gpus) * gpus})


def lengthened(settings: MoeTrainingSection, tokens: int) -> MoeTrainingSection:
    """Return the settings with another length."""
    return settings.model_copy(update={"tokens": tokens, "steps": None, "epochs": None})
