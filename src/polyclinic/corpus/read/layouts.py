"""Raw records into documents, by a declared layout (`data/layouts.yaml`) and a source's own names and constants.

A broken record is a RecordError that names its line and its kind, and never its text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from polyclinic.corpus.read.faults import RecordError
from polyclinic.corpus.read.rows import Row
from polyclinic.corpus.read.streams import MAX_LINE_BYTES
from polyclinic.corpus_section import Source
from polyclinic.errors import UnknownLanguageError
from polyclinic.languages import language
from polyclinic.records import Document, Turn

TAG = re.compile(r"\s*[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*\s*")  # the shape of a language tag, BCP 47
# Kinds of text the paper counts; any other name may stand in a record.
CATEGORIES = (
    "books",
    "papers",
    "encyclopedias",
    "dialogues",
    "exams",
    "guidelines",
    "web",
    "general",
    "math",
    "code",
)
MAX_NAME = 200  # characters of what is shown on the card: names of sources, licences, categories
CORRECT = "correct or remove the record"


@dataclass(frozen=True)
class Layout:
    """Where a kind of record keeps its text; see `data/layouts.yaml`."""

    text: str | None = None
    messages: str | None = None
    role: str = "role"
    content: str = "content"
    roles: Mapping[str, str] = field(default_factory=dict)
    question: tuple[str, ...] = ()
    answer: str = ""
    history: str = ""
    category: Mapping[str, str] = field(default_factory=dict)


@cache
def layouts() -> dict[str, Layout]:
    """Return the known layouts by name."""
    given = yaml.safe_load(resources.files("polyclinic.data").joinpath("layouts.yaml").read_text("utf-8"))
    return {name: Layout(**{**keys, "question": tuple(keys.get("question", ()))}) for name, keys in given.items()}


class Shape:
    """A source's layout, names of columns and constants, worked out once for all its records."""

    def __init__(self, source: Source) -> None:
        self.layout = layouts()[source.layout]
        self.columns = dict(source.fields)
        self.constants = {
            "language": source.language,
            "licence": source.licence,
            "source": source.source,
            "url": source.url,
            "category": source.category,
        }
        self._codes: dict[str, str] = {}

    def value(self, row: Row, name: str) -> Any:
        """Return what stands in the column of a field, or None."""
        return row.values.get(self.columns.get(name, name))

    def field(self, row: Row, name: str, default: str | None = None) -> str:
        """Return a text field, else the source's constant, else the default, where it is absent, null or blank.

        Raises RecordError where it is not text, or nothing is left.
        """
        column = self.columns.get(name, name)
        value = row.values.get(column)
        if value is None or (isinstance(value, str) and (not value or value.isspace())):
            found = self.constants.get(name) or default
            if found is None:
                what = f"field '{column}' is {'missing' if value is None else 'empty'}"
                kind = "missing field" if value is None else "empty field"
                raise RecordError(row.where, what, f"map it with fields: {{{name}: COLUMN}}", kind)
            return found
        return text_of(row, f"field '{column}'", value)

    def name(self, row: Row, name: str, default: str) -> str:
        """Return a field that is shown on the card, so it must be short."""
        found = self.field(row, name, default)
        if len(found) > MAX_NAME:
            what = f"field '{self.columns.get(name, name)}' has more than {MAX_NAME} characters"
            raise RecordError(row.where, what, CORRECT, "no short name")
        return found

    def identity(self, row: Row, name: str, default: str) -> str:
        """Return a field that names a record; whole numbers are taken, too."""
        value = self.value(row, name)
        return str(value) if type(value) is int else self.field(row, name, default)

    def origin(self, row: Row) -> dict[str, str]:
        """Return what every record has, text and exam item alike: id, language, source, licence, group."""
        identity = self.identity(row, "id", row.where)
        return {
            "id": identity,
            "language": self.language(row),
            "source": self.name(row, "source", "unnamed"),
            "licence": self.name(row, "licence", "unknown"),
            "group": self.identity(row, "parallel_id", identity),
        }

    def language(self, row: Row) -> str:
        """Return the code our table uses for a record's language, whatever alias the record gave."""
        given = self.field(row, "language")
        if given not in self._codes:
            self._codes[given] = self._language(row, given)
        return self._codes[given]

    def _language(self, row: Row, given: str) -> str:
        if not TAG.fullmatch(given):
            what = "the language is no code"
            raise RecordError(row.where, what, "map it with fields: {language: COLUMN}", "unknown language")
        try:
            return language(given, where=row.where).code
        except UnknownLanguageError as err:
            raise RecordError(err.where, err.what, err.try_, "unknown language") from err

    def category(self, row: Row) -> str:
        """Return what kind of text a record is; empty where nothing says it."""
        if not self.layout.category:
            return self.name(row, "category", "")
        origin = str(self.value(row, "source"))
        known = (name for start, name in self.layout.category.items() if origin.startswith(start))
        return self.name(row, "category", next(known, ""))


def text_of(row: Row, what: str, value: Any) -> str:
    """Return a value that must be text: no other type, not blank, not endless, every character whole."""
    if not isinstance(value, str):
        raise RecordError(row.where, f"{what} is not text", CORRECT, "wrong type")
    if not value or value.isspace():
        raise RecordError(row.where, f"{what} is empty", CORRECT, "empty field")
    if len(value) > MAX_LINE_BYTES:
        raise RecordError(row.where, f"{what} has more than {MAX_LINE_BYTES} characters", CORRECT, "too long")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        message = f"{what} holds half a character, or a byte that is not UTF-8"
        raise RecordError(row.where, message, "write it as UTF-8", "not UTF-8") from err
    return value


def to_document(row: Row, shape: Shape) -> Document:
    """Turn a raw record into a document."""
    return Document(
        **shape.origin(row),
        turns=_turns(row, shape),
        category=shape.category(row),
        url=shape.field(row, "url", ""),
    )


def _turns(row: Row, shape: Shape) -> tuple[Turn, ...]:
    layout = shape.layout
    if layout.question:
        return _pair(row, shape)
    messages = shape.value(row, "messages") if "messages" in shape.columns else row.values.get(layout.messages or "")
    if messages is not None or layout.text is None:
        return _messages(row, layout, messages)
    return (Turn("text", shape.field(row, "text")),)


def _messages(row: Row, layout: Layout, messages: Any) -> tuple[Turn, ...]:
    """Check a list of messages; what the system says goes before the user's next turn."""
    out: list[Turn] = []
    told = ""
    try:
        for message in messages:
            role = layout.roles.get(message[layout.role])
            if role is None:
                raise RecordError(row.where, "a message of another role", "see docs/corpus.md", "unknown role")
            content = text_of(row, "a message", _content(message[layout.content]))
            if role == "system":
                told += f"{content}\n"
            else:
                speaks = role == "user"
                out.append(Turn(role, told + content if speaks else content))  # type: ignore[arg-type]
                told = "" if speaks else told
    except (TypeError, KeyError) as err:
        what = f"messages without {layout.role} and {layout.content}"
        raise RecordError(row.where, what, "see docs/corpus.md", "no messages") from err
    if not out:
        raise RecordError(row.where, "no messages", CORRECT, "no messages")
    return tuple(out)


def _content(given: Any) -> Any:
    """Return the text of a message that may come in parts; anything else stays as it is."""
    if isinstance(given, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in given):
        return "\n".join(part["text"] for part in given)
    return given


def _pair(row: Row, shape: Shape) -> tuple[Turn, ...]:
    """Return a question and its answer, after those of the history."""
    layout = shape.layout
    asked = [shape.field(row, layout.question[0]), *(shape.field(row, name, "") for name in layout.question[1:])]
    out: list[Turn] = []
    try:
        for question, answer in shape.value(row, layout.history) or ():
            out += [Turn("user", text_of(row, "a turn", question)), Turn("assistant", text_of(row, "a turn", answer))]
    except (TypeError, ValueError) as err:
        what = f"field '{layout.history}' is no list of pairs"
        raise RecordError(row.where, what, CORRECT, "wrong type") from err
    answer = shape.field(row, layout.answer)
    return (*out, Turn("user", "\n".join(filter(None, asked))), Turn("assistant", answer))
