"""Dense weights into a native mixture, file by file.

Every tensor of the result is planned from names and shapes alone; then one output file at a time is
filled and written. Parents are mapped, not read, and a file holds no more than the largest tensor
does, so memory is bounded by that tensor, not by the model.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyclinic.errors import CheckpointError
from polyclinic.moe.blueprint import Blueprint, Mixture
from polyclinic.moe.checkpoint import INDEX
from polyclinic.moe.skeleton import read_tensor
from polyclinic.runs import write_json

PIECE = 1 << 22  # elements looked at or changed at a time, so that no second copy of a tensor arises
SMALLEST_SHARD = 64_000_000  # bytes; below it, cutting files finer saves nothing
ROUTER_STD = 0.02  # initializer_range of the native classes
FFN = ("gate_proj", "up_proj", "down_proj")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Header = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Planned:
    """One tensor of the mixture and where its values come from."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    source: str | None = None  # dense tensor that is copied; None: drawn here, or given
    first_row: int | None = None  # of a part of a fused dense tensor
    noise: float = 0.0  # added to a copy, as a share of its standard deviation
    reinit: float = 0.0  # share of the expert's inner units that are drawn again
    std: float = 0.0  # of a tensor drawn here; 0 gives zeros

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_copy(self) -> bool:
        """Say whether every value is the parent's."""
        return self.source is not None and not self.noise and not self.reinit


def headers(files: Mapping[str, Path]) -> dict[str, Header]:
    """Return shape and dtype of every tensor, in the order of files, without reading data.

    Raises CheckpointError for a precision that is none of fp32, fp16 and bf16.
    """
    out: dict[str, Header] = {}
    for path in sorted(set(files.values())):
        with safe_open(path, framework="pt") as file:
            for name in sorted(n for n, p in files.items() if p == path):
                piece = file.get_slice(name)
                if piece.get_dtype() not in DTYPES:
                    what = f"{name} has dtype {piece.get_dtype()}"
                    raise CheckpointError(path, what, "give fp32, fp16 or bf16")
                out[name] = (tuple(piece.get_shape()), DTYPES[piece.get_dtype()])
    return out


def plan_tensors(
    dense: Mapping[str, Header], config: Mapping[str, Any], blueprint: Blueprint, mixture: Mixture
) -> list[Planned]:
    """List every tensor of the mixture from the dense model's names and shapes and its resolved config."""
    out: list[Planned] = []
    for name, (shape, dtype) in dense.items():
        for copy in _unfused(Planned(name, shape, dtype, name), config, blueprint):
            out += _placed(copy, mixture, blueprint, int(config["hidden_size"]))
    return out


def _unfused(tensor: Planned, config: Mapping[str, Any], blueprint: Blueprint) -> Iterator[Planned]:
    """Cut a fused projection into the parts that the native class holds apart."""
    rows = {
        "q": int(config["num_attention_heads"] * config["head_dim"]),
        "kv": int(config["num_key_value_heads"] * config["head_dim"]),
        "ffn": int(config["intermediate_size"]),
    }
    for fused, parts in blueprint.splits.items():
        stem, found, rest = tensor.name.partition(fused)
        if not found:
            continue
        first = 0
        for part, kind in parts:
            shape = (rows[kind], *tensor.shape[1:])
            yield Planned(f"{stem}{part}{rest}", shape, tensor.dtype, tensor.name, first_row=first)
            first += rows[kind]
        return
    yield tensor


def _placed(copy: Planned, mixture: Mixture, blueprint: Blueprint, hidden: int) -> list[Planned]:
    """Return a tensor as it is or, of a sparse layer's FFN, as its copies in experts and what comes beside them."""
    stem, found, part = copy.name.partition(".mlp.")
    layer = stem.removeprefix("model.layers.")
    if not found or not layer.isdigit() or int(layer) not in mixture.sparse_layers:
        return [copy]
    block = f"{stem}.mlp"
    of_expert = {"noise": mixture.noise, "reinit": mixture.reinit}
    out = [_named(copy, f"{block}.experts.{e}.{part}", **of_expert) for e in range(mixture.num_experts)]
    if mixture.shared_expert != "none":
        # With a silent last projection the shared expert adds nothing until it is trained.
        silent = mixture.shared_expert == "zero" and part.startswith("down_proj")
        out.append(_named(copy, f"{block}.shared_expert.{part}", **({"source": None} if silent else {})))
    if part == f"{FFN[0]}.weight":
        out += plan_beside(block, hidden, copy.dtype, mixture, blueprint)
    return out


def _named(tensor: Planned, name: str, **changes: Any) -> Planned:
    return Planned(**{**vars(tensor), "name": name, **changes})


def plan_beside(block: str, hidden: int, dtype: torch.dtype, mixture: Mixture, blueprint: Blueprint) -> list[Planned]:
    """Plan a layer's router, and the shared expert of width zero that Qwen2-MoE builds where none is wanted."""
    std = ROUTER_STD if mixture.router_init != "zero" else 0.0
    planned = [Planned(f"{block}.gate.weight", (mixture.num_experts, hidden), dtype, std=std)]
    if blueprint.always_shared and mixture.shared_expert == "none":
        shapes = {"gate_proj": (0, hidden), "up_proj": (0, hidden), "down_proj": (hidden, 0)}
        planned += [Planned(f"{block}.shared_expert.{m}.weight", s, dtype) for m, s in shapes.items()]
    if blueprint.always_shared:
        planned.append(Planned(f"{block}.shared_expert_gate.weight", (1, hidden), dtype))
    return planned


def write_tensors(
    planned: Sequence[Planned], files: Mapping[str, Path], out: Path, seed: int, given: Mapping[str, Tensor]
) -> None:
    """Write all planned tensors into numbered safetensors files with an index.

    `files` holds the dense tensors, `given` values for tensors without a parent (routers).
    Raises CheckpointError for a dense tensor that holds a value which is not a number.
    """
    shards = _shards(planned)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # No name holds the values: the next file's would arise beside them.
        save_file({p.name: _value(p, files, seed, given) for p in shard}, out / name, metadata={"format": "pt"})
        weight_map |= {p.name: name for p in shard}
    total = sum(p.num_bytes for p in planned)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Cut the plan into runs no larger than its largest tensor, or than what is small anyhow."""
    limit = max(SMALLEST_SHARD, *(p.num_bytes for p in planned))
    shards: list[list[Planned]] = [[]]
    size = 0
    for tensor in planned:
        if shards[-1] and size + tensor.num_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards


def source_of(planned: Planned, files: Mapping[str, Path]) -> Tensor:
    """Return the parent's values of a planned tensor, mapped from its file."""
    value = read_tensor(files, str(planned.source))
    return value if planned.first_row is None else value[planned.first_row :][: planned.shape[0]]


def _value(planned: Planned, files: Mapping[str, Path], seed: int, given: Mapping[str, Tensor]) -> Tensor:
    """Read or draw one tensor; what is drawn depends on seed and name alone."""
    if planned.name in given:
        return given[planned.name].to(planned.dtype).contiguous()
    if planned.source is None:
        return planned.std * _normal(planned, seed) if planned.std else torch.zeros(planned.shape, dtype=planned.dtype)
    value = source_of(planned, files)
    if not all(piece.isfinite().all() for piece in torch.split(value.reshape(-1), PIECE)):
        raise CheckpointError(files[planned.source], f"{planned.source} holds NaN or infinity", "fetch it again")
    if planned.noise:
        value = _with_noise(planned, value, seed)
    if planned.reinit:
        value = _drawn_again(planned, value, seed)
    return value


def _with_noise(planned: Planned, value: Tensor, seed: int) -> Tensor:
    generator, out = _generator(f"{seed}:{planned.name}"), value.clone()
    scale = planned.noise * value.float().std()
    for piece in torch.split(out.view(-1), PIECE):
        piece += (scale * torch.randn(piece.shape, generator=generator)).to(piece.dtype)
    return out


def _drawn_again(planned: Planned, value: Tensor, seed: int) -> Tensor:
    """Draw a share of an expert's inner units again: the same units in its three projections.

    Drop-upcycling (arXiv 2502.19261, section 3.2): normal, with mean and standard deviation of the
    values that are replaced.
    """
    expert, part = planned.name.rsplit(".", 2)[:2]
    axis = 1 if part == FFN[2] else 0
    count = round(planned.reinit * value.shape[axis])
    units = torch.randperm(value.shape[axis], generator=_generator(f"{seed}:{expert}"))[:count]
    old = value.index_select(axis, units).float()
    drawn = torch.randn(old.shape, generator=_generator(f"{seed}:{planned.name}"))
    if count:
        drawn = old.mean() + old.std() * drawn
    return value.clone().index_copy_(axis, units, drawn.to(value.dtype))


def _normal(planned: Planned, seed: int) -> Tensor:
    return torch.randn(planned.shape, generator=_generator(f"{seed}:{planned.name}")).to(planned.dtype)


def _generator(mark: str) -> torch.Generator:
    number = int.from_bytes(hashlib.sha256(mark.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)
