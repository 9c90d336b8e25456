"""Records that cannot be read: the first ends the build, or each is counted and noted, never its text.

A fault of one record has a `kind`, one of few, which is what counts and notes say of it. What is
wrong with a whole file (a broken archive, a wrong footer) is a plain DataError and always ends the
build: nobody knows what else is lost.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from polyclinic.corpus.step import DROPPED
from polyclinic.errors import DataError

QUARANTINE = "quarantine.jsonl"
UNREADABLE = "unreadable: "


class RecordError(DataError):
    """One record that cannot be read, of a kind that tells nothing about its text."""

    def __init__(self, where: object, what: str, try_: str, kind: str = "unreadable") -> None:
        super().__init__(where, what, try_)
        self.kind = kind


class Faults:
    """Takes what cannot be read: raises it, or (`strict` false) keeps where it stood and what was wrong."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._found: list[tuple[str, int, str]] = []

    def add(self, file: str, number: int, error: RecordError) -> None:
        """Raise the error, or note it."""
        if self._strict:
            raise error
        self._found.append((file, number, error.kind))

    def __len__(self) -> int:
        return len(self._found)

    def counts(self, prefix: str = DROPPED) -> Counter[str]:
        """Return how many records there were of each kind."""
        return Counter(f"{prefix}{UNREADABLE}{kind}" for _, _, kind in self._found)

    def lines(self) -> bytes:
        """Return a line of JSON for each: file below the root, line (or row), reason."""
        found = [dict(zip(("file", "line", "reason"), fault, strict=True)) for fault in self._found]
        return "".join(json.dumps(fault, ensure_ascii=False) + "\n" for fault in found).encode()


def gather(folders: Iterable[Path], more: bytes, target: Path) -> None:
    """Write the notes of all shards, in their order, and `more` into one file."""
    with target.open("wb") as out:
        for folder in folders:
            out.write((folder / QUARANTINE).read_bytes())
        out.write(more)
