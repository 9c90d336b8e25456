"""A raw record and its place in a file, or what is wrong at that place."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from polyclinic.corpus.read.faults import RecordError
from polyclinic.corpus.read.streams import MAX_LINE_BYTES


class Row(NamedTuple):
    """One raw record, and the line (row, item, unit) of the file where it stands."""

    file: str
    number: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """Return its place as errors and ids write it."""
        return f"{self.file}:{self.number}"


class Bad(NamedTuple):
    """A place where no record could be read."""

    file: str
    number: int
    error: RecordError


class Part(NamedTuple):
    """A piece of a file: bytes of JSON lines from the start of a line on, or row groups of Parquet.

    `end` is not in it; `first_line` is the number of its first line, or row, in the file.
    """

    start: int
    end: int
    first_line: int


Rows = Iterator[Row | Bad]


def bad(file: str, number: int, kind: str, what: str, try_: str = "correct or remove the record") -> Bad:
    """Return a record that cannot be read, of a kind that says nothing about its text."""
    return Bad(file, number, RecordError(f"{file}:{number}", what, try_, kind))


def too_long(file: str, number: int) -> Bad:
    """Return a line that is longer than any record may be."""
    return bad(file, number, "too long", f"the line has more than {MAX_LINE_BYTES} bytes", "split the record")
