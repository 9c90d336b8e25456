"""Files in fixed parts: where each begins and ends depends on the file alone.

JSON lines are cut at line ends, Parquet between row groups; a file of any other kind is one part. Each
part is hashed in the pass that counts its lines, once a process as long as size and time stay.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.read.rows import Part
from polyclinic.runs import sha256_file

PART_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20


class Piece(NamedTuple):
    """What one shard reads: a part, or all of a file where it is None; its bytes and their digest."""

    part: Part | None
    size: int
    sha256: str


def pieces(path: Path) -> tuple[Piece, ...]:
    """Return a file's pieces in order; a file that has not changed is read once a process."""
    status = path.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _pieces(path, stamp, status.st_size, PART_BYTES)


@cache
def _pieces(path: Path, stamp: tuple[int, ...], size: int, part_bytes: int) -> tuple[Piece, ...]:
    if size > part_bytes and path.suffix == ".jsonl":
        found = tuple(_cut_lines(path, part_bytes))
    elif size > part_bytes and path.suffix == ".parquet":
        found = tuple(_cut_row_groups(path, part_bytes))
    else:
        found = ()
    return found if len(found) > 1 else (Piece(None, size, sha256_file(path)),)


def _cut_lines(path: Path, part_bytes: int) -> Iterator[Piece]:
    first, line = 0, 1
    with path.open("rb") as file:
        while True:
            found, size, lines = hashlib.sha256(), 0, 0
            for block in _up_to_a_line_end(file, part_bytes):
                found.update(block)
                size += len(block)
                lines += block.count(b"\n")
            if not size:
                return
            yield Piece(Part(first, first + size, line), size, found.hexdigest())
            first, line = first + size, line + lines


def _up_to_a_line_end(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield so many bytes and what is left of the line they end in."""
    block = b""
    while size and (block := file.read(min(size, BLOCK_BYTES))):
        size -= len(block)
        yield block
    while block and not block.endswith(b"\n"):
        block = file.readline(BLOCK_BYTES)
        yield block


def _cut_row_groups(path: Path, part_bytes: int) -> Iterator[Piece]:
    """Gather row groups until they hold enough; a file that is none of Parquet is left to its reader."""
    try:
        meta = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return
    whole = sha256_file(path)
    first, line, size, rows = 0, 1, 0, 0
    for index in range(meta.num_row_groups):
        group = meta.row_group(index)
        size += sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        rows += group.num_rows
        if size >= part_bytes or index + 1 == meta.num_row_groups:
            yield Piece(Part(first, index + 1, line), size, whole)
            first, line, size, rows = index + 1, line + rows, 0, 0


def unchanged(path: Path, piece: Piece) -> bool:
    """Say whether a file still holds the bytes of a piece; of Parquet the whole file is compared."""
    if not path.is_file():
        return False
    if piece.part is None or path.suffix == ".parquet":
        return sha256_file(path) == piece.sha256
    found, left = hashlib.sha256(), piece.size
    with path.open("rb") as file:
        file.seek(piece.part.start)
        while left and (block := file.read(min(left, BLOCK_BYTES))):
            found.update(block)
            left -= len(block)
    return found.hexdigest() == piece.sha256
