"""What a step is: a record batch in; out of it the rows that stay, counts, and the rows that went.

A step may add columns named `mark_...`: what the whole corpus decides by (signatures, measures,
hits). They are kept beside the documents, not in them.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute

MARK = "mark_"
REASON = "reason"
DROPPED = "dropped: "
MADE = "made: "


class Outcome(NamedTuple):
    """The rows a step keeps, what it counted, and the rows it dropped, with their `reason`."""

    batch: pa.RecordBatch
    counts: Counter[str]
    dropped: pa.RecordBatch


def made(counts: Mapping[str, int]) -> int:
    """Return how many rows a step says it added; rows in and these are rows out and dropped."""
    return sum(n for name, n in counts.items() if name.startswith(MADE))


def dropped(counts: Mapping[str, int]) -> int:
    """Return how many rows the counts of a step or a build say went."""
    return sum(n for name, n in counts.items() if name.startswith(DROPPED))


Step = Callable[[pa.RecordBatch], Outcome]


def outcome(batch: pa.RecordBatch, reasons: Sequence[str | None], counts: Counter[str] | None = None) -> Outcome:
    """Part a batch by a reason for each row (None: it stays) and count the drops by reason."""
    found = Counter(counts or {})
    if not any(reasons):
        return Outcome(batch, found, add_column(batch.slice(0, 0), REASON, pa.array([], pa.string())))
    found.update(f"{DROPPED}{reason}" for reason in reasons if reason)
    column = pa.array(reasons, pa.string())
    stays = column.is_null()
    return Outcome(batch.filter(stays), found, add_column(batch, REASON, column).filter(column.is_valid()))


def contents(batch: pa.RecordBatch) -> list[str]:
    """Return the text of all turns of all rows, in order."""
    return list(batch.column("turns").flatten().field("content").to_pylist())


def texts(batch: pa.RecordBatch) -> list[str]:
    """Return the text of each row, one turn a line."""
    pieces, ends = contents(batch), batch.column("turns").offsets.to_pylist()
    first = ends[0] if ends else 0
    return ["\n".join(pieces[a - first : b - first]) for a, b in itertools.pairwise(ends)]


def with_contents(batch: pa.RecordBatch, pieces: Sequence[str]) -> pa.RecordBatch:
    """Return the batch with other text in its turns, given as `contents` returns it."""
    turns = batch.column("turns")
    flat = turns.flatten()
    first = turns.offsets[0].as_py() if len(turns) else 0
    offsets = pa.compute.subtract(turns.offsets, pa.scalar(first, turns.offsets.type))
    arrays = [flat.field("role"), pa.array(pieces, pa.string())]
    fields = list(flat.type)
    made = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, fields=fields), type=turns.type)
    return batch.set_column(batch.schema.get_field_index("turns"), batch.schema.field("turns"), made)


def add_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """Return the batch with one column more."""
    return batch.append_column(pa.field(name, column.type), column)
