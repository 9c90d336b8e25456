"""One input to clean documents: the steps that look at one document at a time.

A pure function of the input and the section, apart from the files it writes: `documents.parquet`,
`marks.parquet` (what the whole corpus decides by, row by row) and `dropped.parquet` (examples of
what went, and why).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from polyclinic.corpus import dedup, readers, starter
from polyclinic.corpus.identify import Identifier, detector, identify
from polyclinic.corpus.inputs import Input
from polyclinic.corpus.normalise import normalise
from polyclinic.corpus.step import MARK, REASON, Outcome, Step, outcome, texts
from polyclinic.corpus.tables import DOCUMENTS, DROPPED, MARKS, Writer, batches
from polyclinic.corpus_section import CorpusSection, Source
from polyclinic.errors import PolyclinicError
from polyclinic.records import Document, Question

DOCUMENTS_FILE, MARKS_FILE, DROPPED_FILE = "documents.parquet", "marks.parquet", "dropped.parquet"
EXAMPLES = 20  # kept of each reason and language in a shard
EXCERPT = 300  # characters of each


class Cleaning(NamedTuple):
    """What decides what becomes of an input."""

    input: Input
    section: CorpusSection
    wanted: tuple[str, ...]


@cache
def _identifier(choice: str, wanted: tuple[str, ...]) -> Identifier:
    return Identifier(detector(choice, wanted))


def steps(cleaning: Cleaning) -> list[tuple[str, Step]]:
    """Return the steps a section asks for, by name, in the order in which they are done."""
    section, wanted = cleaning.section, cleaning.wanted
    drop = section.check_language == "drop"
    found: list[tuple[str, Step]] = [
        ("choose", partial(choose, wanted=frozenset(wanted))),
        ("normalise", normalise),
        ("identify", partial(identify, identifier=_identifier(section.identifier, wanted), drop=drop)),
    ]
    if section.dedup:
        found.append(("dedup", dedup.mark))
    return found


def choose(batch: pa.RecordBatch, wanted: frozenset[str]) -> Outcome:
    """Drop what is in a language the recipe does not name."""
    codes = batch.column("language").to_pylist()
    return outcome(batch, [None if code in wanted else "language not in the recipe" for code in codes])


def clean(cleaning: Cleaning, folder: Path) -> Mapping[str, Any]:
    """Read and clean one input into a folder; returns rows in, rows out and counts."""
    todo = steps(cleaning)
    counts: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    rows_in = 0
    with (
        Writer(folder / DOCUMENTS_FILE) as documents,
        Writer(folder / MARKS_FILE) as marks,
        Writer(folder / DROPPED_FILE) as dropped,
    ):
        dropped.write(pa.RecordBatch.from_pylist([], schema=DROPPED))
        for batch in _batches(cleaning.input):
            rows_in += batch.num_rows
            for name, step in todo:
                result = step(batch)
                if batch.num_rows != result.batch.num_rows + result.dropped.num_rows:
                    raise PolyclinicError(name, "rows went uncounted", "report this")
                dropped.write(examples(result.dropped, shown))
                counts += result.counts
                batch = result.batch
            documents.write(batch.select(DOCUMENTS.names))
            marks.write(batch.select([n for n in batch.schema.names if n in MARKS or n.startswith(MARK)]))
    return {"rows_in": rows_in, "rows_out": documents.rows, "counts": dict(sorted(counts.items()))}


def examples(dropped: pa.RecordBatch, shown: Counter[tuple[str, str]]) -> pa.RecordBatch:
    """Return the first rows of each reason and language, with the beginning of their text."""
    rows = []
    columns = [dropped.column(name).to_pylist() for name in ("id", "language", "source", REASON)]
    for row in zip(*columns, texts(dropped), strict=True):
        shown[row[3], row[1]] += 1
        if shown[row[3], row[1]] <= EXAMPLES:
            rows.append(dict(zip(DROPPED.names, (*row[:4], row[4][:EXCERPT]), strict=True)))
    return pa.RecordBatch.from_pylist(rows, schema=DROPPED)


def _batches(item: Input) -> Iterator[pa.RecordBatch]:
    """Yield an input's documents; one empty batch where there are none, so that the columns are known."""
    found = False
    for batch in batches(DOCUMENTS, (d.row() for d in _read(item))):
        found = True
        yield batch
    if not found:
        yield pa.RecordBatch.from_pylist([], schema=DOCUMENTS)


def _read(item: Input) -> Iterable[Document]:
    if item.path is not None:
        return readers.read(item.path, item.source, readers.to_document)
    return (d for d in starter.documents() if asked(item.source, d))


def asked(source: Source, record: Document | Question) -> bool:
    """Say whether a source's filters keep a record of the starter corpus."""
    only = readers.languages_of(source)
    named = not source.names or record.source in source.names
    return named and (not only or record.language in only) and (not source.splits or record.split in source.splits)
