"""The declared Arrow schemas of everything this stage writes, and one way to write them.

Parquet with zstd, one schema and a fixed row-group size: equal rows give equal bytes, whoever
wrote them. No paths, times or host names are stored.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

TURN = pa.struct([("role", pa.string()), ("content", pa.string())])

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("group", pa.string()),
        ("turns", pa.list_(TURN)),
        ("split", pa.string()),
        ("category", pa.string()),
        ("url", pa.string()),
    ]
)

# What the whole corpus decides by; the steps add columns named `mark_...`. Rows as in the documents.
MARKS = ("id", "language", "source", "group", "split", "category")

# Of each reason, language and shard a few documents that went, for `corpus inspect`.
DROPPED = pa.schema([(name, pa.string()) for name in ("id", "language", "source", "reason", "excerpt")])

# What becomes of each row of a shard: dropped for a reason (null: kept), and its split.
DECISIONS = pa.schema([("reason", pa.string()), ("split", pa.string())])

QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answers", pa.list_(pa.int32())),
        ("context", pa.string()),
    ]
)

# One row is one pack of `pack_tokens` tokens; all five lists have that length.
PACKS = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),  # -100: no loss on this token
        ("position_ids", pa.list_(pa.int32())),  # restarts at 0 with every document
        ("language_ids", pa.list_(pa.int16())),  # index into the manifest's languages, -1: padding
        ("family_ids", pa.list_(pa.int16())),  # expert of the language's family, -1: unknown
    ]
)

# Which record stands in which pack, so that a batch can be traced to its sources.
PACKED_RECORDS = pa.schema([("pack", pa.int32()), ("id", pa.string())])

ROWS_PER_BATCH = 1024


class Writer:
    """Writes record batches of one schema to one Parquet file; the first batch brings the schema."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch; empty ones only bring the schema."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, batch.schema, compression="zstd")
        if batch.num_rows:
            self._writer.write_batch(batch, row_group_size=ROWS_PER_BATCH)
            self.rows += batch.num_rows

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def write_table(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows to one Parquet file, batch by batch; returns the number of rows."""
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches(schema, rows):
            writer.write_batch(batch, row_group_size=ROWS_PER_BATCH)
            count += batch.num_rows
    return count


def batches(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Gather rows into record batches of a fixed size."""
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == ROWS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as dictionaries, one row group in memory at a time."""
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
        yield from batch.to_pylist()
