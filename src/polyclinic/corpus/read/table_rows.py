"""Parquet files and Arrow streams into raw records."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.read.rows import Part, Row, Rows, bad
from polyclinic.errors import DataError

ROWS = 1024


def parquet_rows(path: Path, file: str, part: Part | None) -> Rows:
    """Read a Parquet file, or some of its row groups; raises DataError for one that is damaged."""
    try:
        table = pq.ParquetFile(path)
        groups = range(part.start, part.end) if part else None
        yield from _batch_rows(table.iter_batches(batch_size=ROWS, row_groups=groups), file, part)
    except (pa.ArrowInvalid, OSError) as err:
        raise DataError(file, "not a readable Parquet file", "write it again") from err


def arrow_rows(path: Path, file: str, part: Part | None) -> Rows:
    """Read an Arrow stream, as data sets are saved, always whole; raises DataError for one that is damaged."""
    try:
        with pa.memory_map(str(path)) as source:
            yield from _batch_rows(pa.ipc.open_stream(source), file, part)
    except (pa.ArrowInvalid, OSError) as err:
        raise DataError(file, "not a readable Arrow stream", "write it again") from err


def _batch_rows(batches: Iterable[pa.RecordBatch], file: str, part: Part | None) -> Rows:
    number = part.first_line if part else 1
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            piece = batch.slice(start, ROWS)
            yield from _table_rows(piece, file, number)
            number += piece.num_rows


def _table_rows(batch: pa.RecordBatch, file: str, first: int) -> Rows:
    """Yield a batch's rows; one by one where a byte is wrong, so that only its own row is lost."""
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except UnicodeDecodeError as err:
        if batch.num_rows == 1:
            what = f"byte {err.start} of a field is not UTF-8"
            yield bad(file, first, "not UTF-8", what, "convert the file to UTF-8")
            return
        for index in range(batch.num_rows):
            yield from _table_rows(batch.slice(index, 1), file, first + index)
        return
    names = batch.schema.names
    for index, values in enumerate(zip(*columns, strict=True)):
        yield Row(file, first + index, dict(zip(names, values, strict=True)))
