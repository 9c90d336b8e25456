"""Carry out what was decided for one shard: the documents that stay, with their split, and examples of the rest."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.clean import DOCUMENTS_FILE, DROPPED_FILE, DROPS, drops, examples
from polyclinic.corpus.step import REASON, outcome
from polyclinic.corpus.tables import DOCUMENTS, DROPPED, ROWS_PER_BATCH, Writer


class Selecting(NamedTuple):
    """A shard's folder of clean documents, and the file that says what becomes of each row."""

    shard: Path
    decisions: Path


def select(selecting: Selecting, folder: Path) -> Mapping[str, Any]:
    """Write `documents.parquet` and `dropped.parquet` of one shard; returns rows in and out."""
    shown: Counter[tuple[str, str]] = Counter()
    decided = pq.read_table(selecting.decisions)
    rows_in = 0
    source = pq.ParquetFile(selecting.shard / DOCUMENTS_FILE)
    with Writer(folder / DOCUMENTS_FILE) as documents, Writer(folder / DROPPED_FILE) as dropped:
        documents.write(pa.RecordBatch.from_pylist([], schema=DOCUMENTS))
        dropped.write(pa.RecordBatch.from_pylist([], schema=DROPPED))
        for batch in pq.ParquetFile(selecting.shard / DROPPED_FILE).iter_batches(ROWS_PER_BATCH):
            dropped.write(batch)
        for batch in source.iter_batches(ROWS_PER_BATCH):
            rulings = decided.slice(rows_in, batch.num_rows)
            rows_in += batch.num_rows
            split = rulings.column("split").combine_chunks()
            placed = batch.set_column(batch.schema.get_field_index("split"), batch.schema.field("split"), split)
            result = outcome(placed, rulings.column(REASON).to_pylist())
            documents.write(result.batch)
            dropped.write(examples(result.dropped, shown))
    return {"rows_in": rows_in, "rows_out": documents.rows, DROPS: drops(shown)}
