"""The first step: the records of one input that its source asks for, as documents in record batches.

Each row carries its line in the file (`mark_line`), so that what the whole corpus finds wrong with
it can still name its place.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from polyclinic.corpus.read.faults import Faults, RecordError
from polyclinic.corpus.read.layouts import TAG, Shape, to_document
from polyclinic.corpus.read.readers import Bad, Part, Row, rows
from polyclinic.corpus.step import MARK
from polyclinic.corpus.tables import DOCUMENTS, ROWS_PER_BATCH, TURN
from polyclinic.corpus_section import Source
from polyclinic.errors import UnknownLanguageError
from polyclinic.languages import language
from polyclinic.records import Document, Question

T = TypeVar("T", Document, Question)
LINE = f"{MARK}line"
READ = DOCUMENTS.append(pa.field(LINE, pa.int64()))
MAX_CHARACTERS = 1 << 25  # of a batch, whatever the length of its rows: memory stays bounded


def languages_of(source: Source) -> frozenset[str]:
    """Return the codes a source is limited to, without aliases; empty where it is not limited."""
    return frozenset(language(code, where="languages of a source").code for code in source.languages or ())


def numbered(
    path: Path,
    source: Source,
    convert: Callable[[Row, Shape], T],
    faults: Faults,
    file: str | None = None,
    part: Part | None = None,
) -> Iterator[tuple[int, T]]:
    """Yield the records that a source's filters keep, in file order, each with its line.

    What cannot be read goes to `faults`; a record that the filters leave out is not looked at.
    """
    only, shape = languages_of(source), Shape(source)
    for row in rows(path, part, file, source.unit):
        if isinstance(row, Bad):
            faults.add(row.file, row.number, row.error)
            continue
        if _left_out(row, source, shape) or (only and _foreign(row, shape)):
            continue
        try:
            record = convert(row, shape)
        except RecordError as err:
            faults.add(row.file, row.number, err)
            continue
        if not only or record.language in only:
            yield row.number, record


def read(path: Path, source: Source, convert: Callable[[Row, Shape], T], file: str | None = None) -> Iterator[T]:
    """Yield the records of one file that a source's filters keep; the first that is broken raises RecordError."""
    return (record for _, record in numbered(path, source, convert, Faults(strict=True), file))


def _left_out(row: Row, source: Source, shape: Shape) -> bool:
    if source.names and shape.value(row, "source") not in source.names:
        return True
    return bool(source.splits) and shape.value(row, "split") not in source.splits  # type: ignore[operator]


def _foreign(row: Row, shape: Shape) -> bool:
    """Say whether a record is in a language that has a code, but no row in our table: it is not asked for."""
    code = shape.value(row, "language")
    if not isinstance(code, str) or not TAG.fullmatch(code):
        return False
    try:
        language(code)
    except UnknownLanguageError:
        return True
    return False


def documents(
    path: Path, source: Source, faults: Faults, file: str, part: Part | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield an input's documents in batches with the schema `READ`."""
    held: list[Document] = []
    numbers: list[int] = []
    characters = 0
    for number, document in numbered(path, source, to_document, faults, file, part):
        held.append(document)
        numbers.append(number)
        characters += sum(len(turn.content) for turn in document.turns)
        if len(held) == ROWS_PER_BATCH or characters > MAX_CHARACTERS:
            yield batch(held, numbers)
            held, numbers, characters = [], [], 0
    if held:
        yield batch(held, numbers)


def batch(held: list[Document], numbers: list[int]) -> pa.RecordBatch:
    """Return documents and their lines as one batch, built by columns."""
    turns = [turn for document in held for turn in document.turns]
    ends = pa.array(itertools.accumulate((len(d.turns) for d in held), initial=0), pa.int32())
    pieces = [pa.array([turn.role for turn in turns], pa.string()), pa.array([t.content for t in turns], pa.string())]
    arrays = {"turns": pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(pieces, fields=list(TURN)))}
    for name in DOCUMENTS.names:
        if name not in arrays:
            arrays[name] = pa.array([getattr(d, name) for d in held], pa.string())
    arrays[LINE] = pa.array(numbers, pa.int64())
    return pa.RecordBatch.from_arrays([arrays[name] for name in READ.names], schema=READ)
