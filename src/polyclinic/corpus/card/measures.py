"""Medians of whatever the quality step measured, by language, over the documents that were kept."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyclinic.corpus.clean import MARKS_FILE
from polyclinic.corpus.step import MARK, REASON

PREFIX = f"{MARK}quality_"


def medians(shards: Sequence[Path], decisions: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return measure -> language -> median; empty where no step marked any.

    A measure is a column of numbers named `mark_quality_NAME`; it may be absent from some shards.
    """
    if not shards:
        return {}
    schemas = [pq.read_schema(shard / MARKS_FILE) for shard in shards]
    names = sorted({field.name for schema in schemas for field in schema if _measures(field)})
    out = {}
    for name in names:
        tables = [
            _kept(shard, decided, name)
            for shard, decided, schema in zip(shards, decisions, schemas, strict=True)
            if name in schema.names
        ]
        table = pa.concat_tables(tables).drop_null()
        grouped = {
            code: float(pc.quantile(table.filter(pc.equal(table["language"], code))[name], q=0.5)[0].as_py())
            for code in sorted(table["language"].unique().to_pylist())
        }
        out[name.removeprefix(PREFIX)] = grouped
    return out


def _measures(field: pa.Field) -> bool:
    kind = field.type
    return bool(field.name.startswith(PREFIX) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)))


def _kept(shard: Path, decided: Path, name: str) -> pa.Table:
    """Return a measure and the language of the rows of a shard that were kept."""
    table = pq.read_table(shard / MARKS_FILE, columns=["language", name])
    table = table.set_column(1, name, table[name].cast(pa.float64()))
    return table.filter(pq.read_table(decided, columns=[REASON])[REASON].is_null())
