"""A training plan as a person reads it, and as JSON: a table, what to change, and what was assumed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.memory import FP32, GATHERED_LAYERS, Memory, Parallel, memory
from polyclinic.train.plan import GIGA, PEAKS, Plan, Row, shared

HEAD = ("GPUs", "form", "weights", "grads", "AdamW", "copies", "kept", "work", "total", "fits", "packs", "tok/step")
LENGTH = ("steps", "hours", "h/1e9")
FORMS = {"none": "alone"}
CHANGED = ("batch_packs", "accumulate", "gradient_checkpointing")  # what advice changes
WIDTH = 100
TEN = 10.0


def lines(made: Plan, source: str) -> list[str]:
    """Return the plan as text, short rows first, assumptions last; memory in GB of one GPU."""
    shape, settings = made.shape, made.settings
    again = "on" if settings.gradient_checkpointing else "off"
    out = [
        f"config       {source}",
        f"parameters   {shape.parameters:,}, trained {made.trained:,}, met by one token {shape.active:,}",
        f"batch        {settings.batch_packs} packs of {made.pack_tokens} tokens, accumulate {settings.accumulate}, "
        f"{settings.precision}, gradient_checkpointing {again}",
        f"arithmetic   {_gb(made.work.total)} GFLOP a token, {_gb(made.work.experts)} of them in experts",
        f"checkpoints  {_gb(made.checkpoint)} GB each, {_gb(made.checkpoints)} GB of disk (keep {settings.keep}); "
        f"final model {_gb(FP32 * shape.parameters)} GB",
        "",
        *_table([(*HEAD, *LENGTH), *map(_cells, made.rows)]),
        "",
    ]
    for each in advice(made):
        out += wrap(each, WIDTH, subsequent_indent="  ")
    out.append("assumptions")
    for each in assumptions(made):
        out += wrap(each, WIDTH, initial_indent="- ", subsequent_indent="  ")
    return out


def _gb(count: float) -> str:
    """Return billions, with two digits at least."""
    return f"{count / GIGA:,.2f}" if count >= GIGA else f"{count / GIGA:.2g}"


def _cells(row: Row) -> tuple[str, ...]:
    needed = row.memory
    parts = (needed.weights, needed.gradients, needed.adamw, needed.copies, needed.activations, needed.working)
    return (
        str(row.gpus),
        FORMS.get(row.parallel, row.parallel),
        *map(_gb, (*parts, needed.total)),
        "yes" if row.fits else "no",
        f"{row.batch_packs}x{row.accumulate // row.gpus}",
        f"{row.step_tokens:,}",
        "-" if row.steps is None else f"{row.steps:,}",
        "-" if row.hours is None else _hours(row.hours),
        _hours(row.hours_per_billion),
    )


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= TEN else f"{value:.2g}"


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align columns, numbers to the right."""
    kept = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*kept, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in kept]


def advice(made: Plan) -> list[str]:
    """Say what to change where one GPU does not suffice; a GPU's packs in a step stay as many."""
    room = made.hardware.gpu_memory * GIGA
    if _on(made, made.settings).total <= room:
        return []
    if found := _enough(made, "none", 1):
        return [f"one GPU suffices with {found}"]
    smallest = made.settings.model_copy(update={"batch_packs": 1, "gradient_checkpointing": True})
    here, least = _on(made, made.settings), _on(made, smallest)
    out = [
        f"one GPU does not suffice: {_gb(here.weights + here.gradients + here.adamw)} GB of weights, gradients and "
        f"AdamW, {_gb(least.total)} GB with train.batch_packs=1 and train.gradient_checkpointing=true"
    ]
    for gpus in sorted(n for n in made.hardware.gpus if n > 1):
        if found := _enough(made, "fsdp", gpus):
            return [*out, f"{gpus} GPUs suffice with {found}"]
    return [*out, "nor do the others that were asked for: more of them under train.parallel=fsdp, or a lower "
            "corpus.pack_tokens"]  # fmt: skip


def _on(made: Plan, settings: MoeTrainingSection, parallel: Parallel = "none", gpus: int = 1) -> Memory:
    return memory(made.shape, settings, made.pack_tokens, made.trained, parallel, gpus)


def _enough(made: Plan, parallel: Parallel, gpus: int) -> str:
    """Return the cheapest keys with which a training fits, and its size; nothing where none does."""
    whole = shared(made.settings, gpus)
    for changed in _changes(whole.model_copy(update={"accumulate": whole.accumulate // gpus})):
        needed = _on(made, changed, parallel, gpus)
        if needed.total <= made.hardware.gpu_memory * GIGA:
            found = changed.model_copy(update={"accumulate": changed.accumulate * gpus})
            keys = [
                f"train.{k}={str(v).lower()}" for k in CHANGED if (v := getattr(found, k)) != getattr(made.settings, k)
            ]
            keys += [f"train.parallel={parallel}"] if gpus > 1 else []
            return f"{' '.join(keys)} ({_gb(needed.total)} GB)"
    return ""


def _changes(settings: MoeTrainingSection) -> Iterator[MoeTrainingSection]:
    """Yield what one GPU computes from the cheapest: smaller batches, then layers computed again as well."""
    packs = settings.batch_packs * settings.accumulate
    for again in (False, True):
        if again and settings.gradient_checkpointing:
            return
        for size in (n for n in range(settings.batch_packs, 0, -1) if packs % n == 0):
            smaller = {"batch_packs": size, "accumulate": packs // size}
            yield settings.model_copy(update={**smaller, **({"gradient_checkpointing": True} if again else {})})


def assumptions(made: Plan) -> list[str]:
    """Return what the figures take for granted."""
    hardware, settings = made.hardware, made.settings
    out = [
        f"GB are 1e9 bytes of tensors on each GPU; fits: within {hardware.gpu_memory:g} GB (--gpu-memory). CUDA's "
        "context, NCCL's buffers and fragmentation come on top",
        "weights, gradients and AdamW's two states are fp32: 4, 4 and 8 bytes a parameter",
        "copies: bf16 copies of weights under autocast; under ddp the gradients once more (buckets); under fsdp what "
        f"is gathered: weights of {GATHERED_LAYERS} layers, gradients of one, both of embeddings and head",
        "kept: what layers keep for their gradients. Packs hold several documents; attention is a fused kernel that "
        "keeps no scores but, in each layer, the mask of packs, a number for each pair of tokens of a pack",
        "packs: that a GPU computes at a time, and how often in a step; of the recipe, or the most that share it out",
        "work: the largest of three pieces of logits, the sums of their gradients of the head, and one layer computed "
        "again. The total is a bound",
        "arithmetic: 6 a parameter that a token meets, 12 x width x pack tokens a layer for attention; 8 and 16 for "
        "what is computed again. Padding costs as text does",
        f"hours: {_peaks(made)}, of which {hardware.mfu:g} are reached (--mfu): an assumption, not measured, the same "
        "on every row. h/1e9: hours for 1e9 tokens",
        "not in it: the base's own training, evaluation, saving",
    ]
    if settings.precision == "bf16":
        out.insert(2, "experts stay in fp32 under bf16: autocast does not know their grouped product")
    if settings.epochs is not None:
        out.append("length: the recipe gives epochs of packs not counted yet; --tokens N gives steps and hours")
    elif settings.steps is not None:
        out.append("length: the recipe's steps, of the same packs on every row unless they are fewer than the GPUs")
    return out


def _peaks(made: Plan) -> str:
    if made.hardware.tflops is not None:
        return f"peak {made.hardware.tflops:g} TFLOP/s, as given, for all products"
    if made.settings.precision == "fp32":
        return f"peak {PEAKS['fp32']:g} TFLOP/s (H100 SXM, fp32)"
    return f"peak {PEAKS['bf16']:g} TFLOP/s (H100 SXM, bf16), {PEAKS['fp32']:g} for the experts in fp32"


def as_json(made: Plan, source: str) -> dict[str, Any]:
    """Return the plan as plain values: bytes, tokens, hours, operations."""
    rows = [
        {**asdict(row), "memory": {**asdict(row.memory), "working": row.memory.working, "total": row.memory.total}}
        for row in made.rows
    ]
    return {
        "config": source,
        "parameters": made.shape.parameters,
        "trained_parameters": made.trained,
        "active_parameters": made.shape.active,
        "pack_tokens": made.pack_tokens,
        "flops_per_token": made.work.total,
        "flops_per_token_in_experts": made.work.experts,
        "checkpoint_bytes": made.checkpoint,
        "checkpoints_bytes": made.checkpoints,
        "final_bytes": FP32 * made.shape.parameters,
        "hardware": asdict(made.hardware),
        "rows": rows,
        "advice": advice(made),
        "assumptions": assumptions(made),
    }
