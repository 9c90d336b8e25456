"""JSON lines and Parquet into documents and questions, with the line in every complaint.

Bytes are decoded line by line, so that one bad byte costs an error with its line number and never
the rest of a file. Columns are found under our names or under the names a source's `fields` gives.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.recipe import Source
from polyclinic.records import Document, Question, Turn

MAX_LINE_BYTES = 16_000_000
T = TypeVar("T", Document, Question)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Row(NamedTuple):
    """One raw record and where it stands, for errors."""

    where: str
    values: dict[str, Any]


def rows(path: Path) -> Iterator[Row]:
    """Yield the raw records of a .jsonl or .parquet file; raises DataError naming the line."""
    if not path.is_file():
        raise DataError(path, "no such file", "check corpus.root and the path")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".jsonl":
        yield from _json_rows(path)
    else:
        raise DataError(path, f"unknown kind of file '{path.suffix}'", "give .jsonl or .parquet")


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise DataError(where, f"the line has {len(line)} bytes", "split the record")
            if not line.strip():
                continue
            yield Row(where, _json_object(where, line))


def _json_object(where: str, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise DataError(where, f"byte {err.start} is not UTF-8", "convert the file to UTF-8") from err
    except (ValueError, RecursionError) as err:
        raise DataError(where, "not a JSON object on one line", "correct or remove the line") from err
    if not isinstance(value, dict):
        raise DataError(where, "a JSON value that is not an object", "write one object a line")
    return value


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path.name}:{number}", values)
    except (pa.ArrowInvalid, OSError) as err:
        raise DataError(path, "not a readable Parquet file", "write it again") from err


def _field(row: Row, source: Source, name: str, default: str | None = None) -> str:
    """Return a text field; raises DataError where it is missing, empty or not text."""
    column = source.fields.get(name, name)
    value = row.values.get(column, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        what = f"field '{column}' is " + ("missing" if value is None else "not text, or empty")
        raise DataError(row.where, what, f"map it with fields: {{{name}: COLUMN}}")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise DataError(row.where, f"field '{column}' holds half a character", "write it as UTF-8") from err
    return value


def _language(row: Row, source: Source) -> str:
    """Return the code our table uses for a record's language, whatever alias the record gave."""
    return language(_field(row, source, "language")).code


def to_document(row: Row, source: Source) -> Document:
    """Turn a raw record with `text` or `messages` into a document."""
    identity = _field(row, source, "id", row.where)
    messages = row.values.get(source.fields.get("messages", "messages"))
    turns = _turns(row, messages) if messages is not None else (Turn("text", _field(row, source, "text")),)
    return Document(
        id=identity,
        language=_language(row, source),
        source=_field(row, source, "source", "unnamed"),
        licence=_field(row, source, "licence", "unknown"),
        group=_field(row, source, "parallel_id", identity),
        turns=turns,
    )


def _turns(row: Row, messages: Any) -> tuple[Turn, ...]:
    """Check a message list: user and assistant in turn, all with text."""
    try:
        turns = tuple(Turn(m["role"], m["content"]) for m in messages)
    except (TypeError, KeyError) as err:
        raise DataError(row.where, "messages without role and content", "see docs/corpus.md") from err
    if not turns or any(t.role not in ("user", "assistant") or not str(t.content).strip() for t in turns):
        raise DataError(row.where, "a message of another role, or empty", "see docs/corpus.md")
    return turns


def to_question(row: Row, source: Source) -> Question:
    """Turn a raw exam item into a question; options by letter, answer a letter or several."""
    options = row.values.get(source.fields.get("options", "options"))
    if isinstance(options, list):
        options = dict(zip(LETTERS, options, strict=False))
    if not isinstance(options, dict) or sum(v is not None for v in options.values()) < 2:  # noqa: PLR2004
        raise DataError(row.where, "needs at least two options", "correct or remove the item")
    options = {k: str(v) for k, v in options.items() if v is not None}
    answer = row.values.get(source.fields.get("answer", "answer"))
    given = answer if isinstance(answer, list) else [answer]
    if not given or any(a not in options for a in given):
        raise DataError(row.where, f"answer {answer!r} is not among the options", "correct the item")
    identity = _field(row, source, "id", row.where)
    return Question(
        id=identity,
        language=_language(row, source),
        source=_field(row, source, "source", "unnamed"),
        licence=_field(row, source, "licence", "unknown"),
        group=_field(row, source, "parallel_id", identity),
        split=_field(row, source, "split", "test"),
        question=_field(row, source, "question"),
        options=tuple(options.values()),
        answers=tuple(list(options).index(a) for a in given),
        context=_field(row, source, "context", ""),
    )


def read(path: Path, source: Source, convert: Callable[[Row, Source], T]) -> Iterator[T]:
    """Yield the records of one file that a source's filters keep, in file order."""
    for row in rows(path):
        values = row.values
        if source.names and values.get(source.fields.get("source", "source")) not in source.names:
            continue
        if source.splits and values.get(source.fields.get("split", "split")) not in source.splits:
            continue
        record = convert(row, source)
        if not source.languages or record.language in source.languages:
            yield record
