"""One name, one text: a record is named by source, language and id, and no two texts may share that."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyclinic.corpus.dedup.dedup import Mask
from polyclinic.corpus.read.read import LINE
from polyclinic.corpus.step import MARK, Outcome, add_column, outcome, texts
from polyclinic.errors import DataError

TEXT = f"{MARK}text"
INPUT = "input"  # which shard a row is of, as `decide` adds it
NAME = ["source", "language", "id"]
REASON = "unreadable: id of another text"


def mark(batch: pa.RecordBatch) -> Outcome:
    """Add a digest of each text as it is by now, 8 bytes as a number."""
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts(batch)]
    numbers = pa.array(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))
    return outcome(add_column(batch, TEXT, numbers), [None] * batch.num_rows)


def check_identities(marks: pa.Table, standing: Mask, files: Sequence[str], strict: bool) -> dict[int, str]:
    """Return the rows whose name an earlier row has with another text; raises DataError for the first if strict.

    Equal texts under one name are no fault, only duplicates. Languages are codes of our table, so
    that aliases do not hide a clash.
    """
    table = pa.table({**{name: marks.column(name) for name in [*NAME, TEXT]}, "row": np.arange(marks.num_rows)})
    groups = table.filter(pa.array(standing)).group_by(NAME).aggregate([(TEXT, "min"), (TEXT, "max"), ("row", "min")])
    several = groups.filter(pc.not_equal(groups.column(f"{TEXT}_min"), groups.column(f"{TEXT}_max")))
    if not several.num_rows:
        return {}
    joined = table.join(several.select([*NAME, "row_min"]), NAME, join_type="inner").sort_by("row")
    numbers = marks.column(TEXT).to_numpy()
    pairs = zip(joined.column("row").to_pylist(), joined.column("row_min").to_pylist(), strict=True)
    found = {row: first for row, first in pairs if standing[row] and numbers[row] != numbers[first]}
    if strict:
        row = min(found)
        what = f"has the id of another text, at {_place(marks, files, found[row])}"
        try_ = "map another column, fields: {id: COLUMN}; one that no record has makes ids of file and line"
        raise DataError(_place(marks, files, row), what, try_)
    return dict.fromkeys(sorted(found), REASON)


def _place(marks: pa.Table, files: Sequence[str], row: int) -> str:
    return f"{files[marks.column(INPUT)[row].as_py()]}:{marks.column(LINE)[row].as_py()}"
