"""JSON lines and Parquet into documents and questions, with the line in every complaint.

Bytes are decoded line by line, so that one bad byte costs an error with its line number and never
the rest of a file. Columns are found under our names or under the names a source's `fields` gives.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.parts import Part
from polyclinic.corpus_section import Source
from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.records import Document, Question, Turn

MAX_LINE_BYTES = 16_000_000
T = TypeVar("T", Document, Question)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TAG = re.compile(r"\s*[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*\s*")  # the shape of a language tag, BCP 47


class Row(NamedTuple):
    """One raw record and where it stands, for errors."""

    where: str
    values: dict[str, Any]


def rows(path: Path, part: Part | None = None) -> Iterator[Row]:
    """Yield the raw records of a .jsonl or .parquet file, or of a part of it; raises DataError naming the line."""
    if not path.is_file():
        raise DataError(path, "no such file", "check corpus.root and the path")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, part)
    elif path.suffix == ".jsonl":
        yield from _json_rows(path, part)
    else:
        raise DataError(path, f"unknown kind of file '{path.suffix}'", "give .jsonl or .parquet")


def _json_rows(path: Path, part: Part | None = None) -> Iterator[Row]:
    first, end, line_number = part or (0, None, 1)
    with path.open("rb") as file:
        file.seek(first)
        for number in itertools.count(line_number):
            if file.tell() == end or not (line := file.readline(MAX_LINE_BYTES + 1)):
                return
            where = f"{path.name}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise DataError(where, f"the line has more than {MAX_LINE_BYTES} bytes", "split the record")
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


def _parquet_rows(path: Path, part: Part | None = None) -> Iterator[Row]:
    number = part.line - 1 if part else 0
    try:
        file = pq.ParquetFile(path)
        groups = range(part.first, part.end) if part else range(file.num_row_groups)
        for batch in file.iter_batches(batch_size=1024, row_groups=groups):
            for values in _values(batch):
                number += 1
                yield Row(f"{path.name}:{number}", values)
    except UnicodeDecodeError as err:
        what = f"byte {err.start} of a field is not UTF-8"
        raise DataError(f"{path.name}:{number + 1}", what, "convert the file to UTF-8") from err
    except (pa.ArrowInvalid, OSError) as err:
        raise DataError(path, "not a readable Parquet file", "write it again") from err


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows; one by one where a byte is wrong, so that the rows before it are counted."""
    try:
        return iter(batch.to_pylist())
    except UnicodeDecodeError:
        return (batch.slice(index, 1).to_pylist()[0] for index in range(batch.num_rows))


def _field(row: Row, source: Source, name: str, default: str | None = None) -> str:
    """Return a text field, or its default where it is absent, null or blank.

    Raises DataError where it is not text, or there is no default.
    """
    column = source.fields.get(name, name)
    value = row.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        if default is None:
            what = f"field '{column}' is {'missing' if value is None else 'empty'}"
            raise DataError(row.where, what, f"map it with fields: {{{name}: COLUMN}}")
        return default
    return _text(row, f"field '{column}'", value)


def _text(row: Row, what: str, value: Any) -> str:
    """Return a value that must be text: no other type, not blank, no half of a surrogate pair."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(row.where, f"{what} is not text, or empty", "correct or remove the record")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise DataError(row.where, f"{what} holds half a character", "write it as UTF-8") from err
    return value


def _language(row: Row, source: Source) -> str:
    """Return the code our table uses for a record's language, whatever alias the record gave."""
    code = _field(row, source, "language")
    if not TAG.fullmatch(code):
        raise DataError(row.where, "the language is no code", "map it with fields: {language: COLUMN}")
    return language(code, where=row.where).code


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
    """Check a message list: turns of user and assistant, all with text."""
    try:
        turns = tuple(Turn(m["role"], _text(row, "a message", m["content"])) for m in messages)
    except (TypeError, KeyError) as err:
        raise DataError(row.where, "messages without role and content", "see docs/corpus.md") from err
    if not turns or any(t.role not in ("user", "assistant") for t in turns):
        raise DataError(row.where, "no messages, or one of another role", "see docs/corpus.md")
    return turns


def to_question(row: Row, source: Source) -> Question:
    """Turn a raw exam item into a question; options by letter, answer a letter or several."""
    options = _options(row, source)
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
        answers=_answers(row, source, list(options)),
        context=_field(row, source, "context", ""),
    )


def _options(row: Row, source: Source) -> dict[str, str]:
    """Return the options by letter, without those that are null."""
    given = row.values.get(source.fields.get("options", "options"))
    if isinstance(given, list) and len(given) <= len(LETTERS):
        given = dict(zip(LETTERS, given, strict=False))
    if not isinstance(given, dict):
        raise DataError(row.where, "options are no list or object of options", "correct or remove the item")
    kept = {k: str(v) if isinstance(v, int | float) else v for k, v in given.items() if v is not None}
    if len(kept) < 2:  # noqa: PLR2004
        raise DataError(row.where, "needs at least two options", "correct or remove the item")
    return {k: _text(row, "an option", v) for k, v in kept.items()}


def _answers(row: Row, source: Source, letters: list[str]) -> tuple[int, ...]:
    """Return which options are right, as indices."""
    answer = row.values.get(source.fields.get("answer", "answer"))
    given = answer if isinstance(answer, list) else [answer]
    if not given or any(a not in letters for a in given):
        raise DataError(row.where, "the answer is not the letter of an option", "correct or remove the item")
    return tuple(dict.fromkeys(letters.index(str(a)) for a in given))


def languages_of(source: Source) -> frozenset[str]:
    """Return the codes a source is limited to, without aliases; empty where it is not limited."""
    return frozenset(language(code, where="languages of a source").code for code in source.languages or ())


def read(path: Path, source: Source, convert: Callable[[Row, Source], T], part: Part | None = None) -> Iterator[T]:
    """Yield the records of one file, or of a part of it, that a source's filters keep, in file order."""
    only = languages_of(source)
    for row in rows(path, part):
        values = row.values
        if source.names and values.get(source.fields.get("source", "source")) not in source.names:
            continue
        if source.splits and values.get(source.fields.get("split", "split")) not in source.splits:
            continue
        record = convert(row, source)
        if not only or record.language in only:
            yield record
