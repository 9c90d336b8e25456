"""What becomes of marked documents and of their translations, and the report of it.

Training and validation text that holds an exam item goes, and so do the documents that a parallel id
joins with it or with the item. Held-out text only has its loss measured: it is reported and stays.
The report names documents and items and holds no text of either.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from polyclinic.corpus.dedup.dedup import Mask
from polyclinic.corpus.leaks.decontaminate import LEAK, WAY
from polyclinic.corpus.leaks.exams import ITEMS_FILE, PIECES_FILE
from polyclinic.runs import write_json

LEAKS_FILE, SUMMARY_FILE = REPORTS = "leaks.parquet", "leaks.json"
PARALLEL = "parallel"
KEPT = "held_out"
REASONS = {PARALLEL: "translation of an exam item"}
DIRECT = "exam item"

LEAKS = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "language", "source", "split", "exam_id", "benchmark")),
        *((name, pa.string()) for name in ("exam_language", "way")),
        ("dropped", pa.bool_()),
    ]
)


class Leak(NamedTuple):
    """A document, by its row among the marks, that holds an exam item or a translation of it."""

    row: int
    item: int
    way: str


def leaked(marks: pa.Table, standing: Mask, exams: Path, folder: Path) -> dict[int, str]:
    """Return the rows to drop, and write both reports into a folder."""
    items = pq.read_table(exams / ITEMS_FILE)
    found = [leak for leak in find(marks, items) if standing[leak.row]]
    splits = marks.column("split").to_pylist()
    out: dict[int, str] = {}
    for leak in found:
        if splits[leak.row] != KEPT:
            out.setdefault(leak.row, REASONS.get(leak.way, DIRECT))
    searched = set(pq.read_table(exams / PIECES_FILE).column("item").to_pylist())
    write_reports(marks, items, found, out, searched, folder)
    return out


def find(marks: pa.Table, items: pa.Table) -> list[Leak]:
    """Return all leaks: marked ones first, then those by parallel ids; one for each pair at most."""
    found = list(_marked(marks))
    pairs = {(leak.row, leak.item) for leak in found}
    for leak in _parallel(marks, items, found):
        if (leak.row, leak.item) not in pairs:
            pairs.add((leak.row, leak.item))
            found.append(leak)
    return found


def _marked(marks: pa.Table) -> Iterator[Leak]:
    """Yield what the steps marked."""
    lists = marks.column(LEAK).combine_chunks()
    rows = pa.compute.list_parent_indices(lists).to_pylist()
    ways = marks.column(WAY).combine_chunks().flatten().to_pylist()
    for row, item, way in zip(rows, lists.flatten().to_pylist(), ways, strict=True):
        yield Leak(row, item, way)


def _parallel(marks: pa.Table, items: pa.Table, found: list[Leak]) -> Iterator[Leak]:
    """Yield the documents of an item's group, and of the groups of documents that hold an item.

    An id that nobody declared parallel is a group of its own and joins nothing across sources.
    """
    groups = marks.column("group")
    wanted: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(items.column("group").to_pylist()):
        wanted[group].append(number)
    hit: dict[str, set[int]] = defaultdict(set)
    for leak, group in zip(found, groups.take(_numbers(leak.row for leak in found)).to_pylist(), strict=True):
        hit[group].add(leak.item)
    rows = np.flatnonzero(pa.compute.is_in(groups, pa.array([*wanted, *hit], pa.string())).to_numpy())
    near = marks.select(["id", "source", "group"]).take(rows).to_pylist()
    ids, benchmarks = (items.column(name).to_pylist() for name in ("id", "benchmark"))
    for row, named in zip(rows.tolist(), near, strict=True):
        group = named["group"]
        for item in wanted.get(group, []):
            if group not in (named["id"], ids[item]) or named["source"] == benchmarks[item]:
                yield Leak(row, item, PARALLEL)
        for item in sorted(hit.get(group, ())):
            yield Leak(row, item, PARALLEL)


def _numbers(values: Iterable[int]) -> pa.Array:
    return pa.array(values, pa.int64())


def write_reports(
    marks: pa.Table, items: pa.Table, found: list[Leak], gone: dict[int, str], searched: set[int], folder: Path
) -> None:
    """Write the pairs as a table, and per benchmark and language which items leaked."""
    documents = marks.select(["id", "language", "source", "split"]).take(_numbers(leak.row for leak in found))
    asked = items.take(_numbers(leak.item for leak in found))
    columns = [*documents.columns, *(asked.column(name) for name in ("id", "benchmark", "language"))]
    ways = pa.array([leak.way for leak in found], pa.string())
    table = pa.table([*columns, ways, pa.array([leak.row in gone for leak in found], pa.bool_())], schema=LEAKS)
    order = [(name, "ascending") for name in ("benchmark", "exam_language", "exam_id", "source", "language", "id")]
    pq.write_table(table.sort_by(order), folder / LEAKS_FILE, compression="zstd")
    write_json(folder / SUMMARY_FILE, {"exams": summary(items, found, gone, searched)})


def summary(items: pa.Table, found: list[Leak], gone: dict[int, str], searched: set[int]) -> list[dict[str, Any]]:
    """Return for each benchmark and language the items, those too short to look for, and those that leaked."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    named = items.select(["benchmark", "language", "id"]).to_pylist()
    for number, row in enumerate(named):
        places[row["benchmark"], row["language"]].append(number)
    by_item: dict[int, list[Leak]] = defaultdict(list)
    for leak in found:
        by_item[leak.item].append(leak)
    out = []
    for (benchmark, code), numbers in sorted(places.items()):
        leaks = [leak for number in numbers for leak in by_item.get(number, [])]
        rows = {leak.row for leak in leaks}
        out.append(
            {
                "benchmark": benchmark,
                "language": code,
                "items": len(numbers),
                "too_short": sum(number not in searched for number in numbers),
                "leaked": len({leak.item for leak in leaks}),
                "documents": len(rows),
                "dropped": len(rows & gone.keys()),
                "leaked_ids": sorted({named[leak.item]["id"] for leak in leaks}),
            }
        )
    return out
