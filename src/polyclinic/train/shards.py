"""Tensors in files, in pieces of rows: each process writes its own rows, any number of processes reads them.

A sharded tensor (FSDP2) is split along its first dimension. Each file names in its header the first
row of every piece it holds, so a checkpoint of two processes can be read by one, or by three.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from polyclinic.errors import CheckpointError

FIRST_ROWS = "first_rows"  # key of the header


class _Piece(NamedTuple):
    first: int
    shape: tuple[int, ...]
    file: Any


def held(tensor: Tensor) -> tuple[Tensor, int]:
    """Return what this process holds of a tensor, sharing its storage, and the first of its rows."""
    if not isinstance(tensor, DTensor):
        return tensor.detach(), 0
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local().detach(), offset[0]


def write(path: Path, tensors: Mapping[str, Tensor], leads: bool) -> None:
    """Write what this process holds; tensors that all hold whole are written by the one that leads."""
    pieces = {name: held(tensor) for name, tensor in tensors.items() if leads or isinstance(tensor, DTensor)}
    first_rows = {name: first for name, (_, first) in pieces.items()}
    save_file({n: t.contiguous() for n, (t, _) in pieces.items()}, path, {FIRST_ROWS: json.dumps(first_rows)})


class Shards:
    """The tensors of the files of a checkpoint, by name."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pieces: dict[str, list[_Piece]] = {}
        self._where = ""
        for path in paths:
            self._where = path.parent.as_posix()
            file: Any = safe_open(path, framework="pt")
            first_rows = json.loads(file.metadata()[FIRST_ROWS])
            for name in file.keys():  # noqa: SIM118 - not a mapping
                piece = _Piece(first_rows[name], tuple(file.get_slice(name).get_shape()), file)
                self._pieces.setdefault(name, []).append(piece)

    def names(self) -> set[str]:
        """Return the names of the tensors."""
        return set(self._pieces)

    def read(self, name: str, like: Tensor) -> Tensor:
        """Return the rows of a tensor that this process holds of `like`, on the CPU.

        Raises CheckpointError where its shape or type is not that of `like`, or rows are missing.
        """
        part, first = held(like)
        pieces = sorted(self._pieces[name], key=lambda piece: piece.first)
        if part.ndim:
            rows = torch.cat([_rows(name, piece, first, first + len(part)) for piece in pieces])
            full: tuple[int, ...] = (sum(p.shape[0] for p in pieces), *pieces[0].shape[1:])
        else:
            rows, full = torch.as_tensor(pieces[0].file.get_tensor(name)), ()
        if full != tuple(like.shape) or rows.shape != part.shape or rows.dtype != part.dtype:
            what = f"{name} is {full} of {rows.dtype}, the model's is {tuple(like.shape)} of {part.dtype}"
            raise CheckpointError(self._where, what, "was the recipe changed?")
        return rows


def _rows(name: str, piece: _Piece, first: int, stop: int) -> Tensor:
    """Return what a piece has of the rows from `first` to before `stop`; it may be none."""
    begin, end = max(first - piece.first, 0), min(stop - piece.first, piece.shape[0])
    return torch.as_tensor(piece.file.get_slice(name)[begin : max(begin, end)])
