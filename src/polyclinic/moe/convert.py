"""Dense weights into a native mixture, file by file.

Every tensor of the result is planned from the dense file headers alone; then one output file at a
time is filled and written, so memory is bounded by `SHARD_BYTES` and the largest tensor, not by
the model.
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
from polyclinic.moe.checkpoint import INDEX, tensor_files
from polyclinic.runs import write_json

SHARD_BYTES = 500_000_000
ROUTER_STD = 0.02  # initializer_range of the native classes
FFN = ("gate_proj", "up_proj", "down_proj")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Planned:
    """One tensor of the mixture and where its values come from."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    source: str | None = None  # dense tensor that is copied; None: drawn here
    noise: float = 0.0  # added to a copy, as a share of its standard deviation
    std: float = 0.0  # of a tensor drawn here; 0 gives zeros

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Mixture:
    """What the conversion makes of a dense model."""

    sparse_layers: tuple[int, ...]
    num_experts: int
    noise: float
    empty_shared_expert: bool
    seed: int


def plan_tensors(folder: Path, config: Mapping[str, Any], mixture: Mixture) -> list[Planned]:
    """List every tensor of the mixture; raises CheckpointError if the dense model lacks an FFN."""
    ffn = {f"model.layers.{i}.mlp.{m}.weight": f"model.layers.{i}.mlp" for i in mixture.sparse_layers for m in FFN}
    headers = dict(_headers(folder))
    absent = sorted(set(ffn) - set(headers))
    if absent:
        raise CheckpointError(folder, f"lacks {absent[0]}", "give a complete dense checkpoint")
    out: list[Planned] = []
    for name, (shape, dtype) in headers.items():
        if name not in ffn:
            out.append(Planned(name, shape, dtype, name))
            continue
        stem, part = ffn[name], name.removeprefix(ffn[name] + ".")
        out += [
            Planned(f"{stem}.experts.{e}.{part}", shape, dtype, name, noise=mixture.noise)
            for e in range(mixture.num_experts)
        ]
        if part == f"{FFN[0]}.weight":
            out += _router(stem, int(config["hidden_size"]), dtype, mixture)
    return out


def _router(stem: str, hidden: int, dtype: torch.dtype, mixture: Mixture) -> list[Planned]:
    """Plan a layer's router, and the shared expert of width zero that Qwen2-MoE always builds."""
    planned = [Planned(f"{stem}.gate.weight", (mixture.num_experts, hidden), dtype, std=ROUTER_STD)]
    if mixture.empty_shared_expert:
        shapes = {"gate_proj": (0, hidden), "up_proj": (0, hidden), "down_proj": (hidden, 0)}
        planned += [Planned(f"{stem}.shared_expert.{m}.weight", s, dtype) for m, s in shapes.items()]
        planned.append(Planned(f"{stem}.shared_expert_gate.weight", (1, hidden), dtype))
    return planned


def _headers(folder: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], torch.dtype]]]:
    """Yield name, shape and dtype of every dense tensor without reading its data."""
    for name, path in sorted(tensor_files(folder).items(), key=lambda item: (item[1], item[0])):
        with safe_open(path, framework="pt") as file:
            piece = file.get_slice(name)
            if piece.get_dtype() not in DTYPES:
                raise CheckpointError(path, f"{name} has dtype {piece.get_dtype()}", "give fp32, fp16 or bf16")
            yield name, (tuple(piece.get_shape()), DTYPES[piece.get_dtype()])


def write_tensors(planned: Sequence[Planned], dense: Path, out: Path, seed: int) -> None:
    """Write all planned tensors into numbered safetensors files with an index."""
    files = tensor_files(dense)
    shards = _shards(planned)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({p.name: _value(p, files, seed) for p in shard}, out / name, metadata={"format": "pt"})
        weight_map |= {p.name: name for p in shard}
    total = sum(p.num_bytes for p in planned)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Cut the plan into runs of at most SHARD_BYTES (one tensor at least)."""
    shards: list[list[Planned]] = [[]]
    size = 0
    for tensor in planned:
        if shards[-1] and size + tensor.num_bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards


def _value(planned: Planned, files: Mapping[str, Path], seed: int) -> Tensor:
    """Read or draw one tensor; what is drawn depends on seed and name alone."""
    if planned.source is None:
        return planned.std * _normal(planned, seed) if planned.std else torch.zeros(planned.shape, dtype=planned.dtype)
    with safe_open(files[planned.source], framework="pt") as file:
        value: Tensor = file.get_tensor(planned.source)
    if planned.noise:
        value = value + (planned.noise * value.float().std() * _normal(planned, seed)).to(value.dtype)
    return value


def _normal(planned: Planned, seed: int) -> Tensor:
    mark = hashlib.sha256(f"{seed}:{planned.name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(mark, "big") >> 1)
    return torch.randn(planned.shape, generator=generator).to(planned.dtype)
