"""Answers of a language model, kept by what was asked: nothing that was answered is ever asked again.

One SQLite file beside the shards. It holds text of the corpus, so it is as private as the shards
are. Several processes may read and write it; where two ask the same at once, the first answer kept
is the one that both return, so that output does not depend on who asked.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from polyclinic.errors import DataError, DiskError

FILE = "answers.sqlite"
PATIENCE = 60.0  # seconds that a write waits for another process
TABLE = """create table if not exists answers (
    request text primary key, text text not null, finish text not null, asked integer, told integer)"""


class Answer(NamedTuple):
    """What a model said, why it stopped (`stop`, `length`), and the tokens of question and answer."""

    text: str
    finish: str
    asked: int | None
    told: int | None


class Answers:
    """The store; `None` keeps nothing beyond the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(path or ":memory:", timeout=PATIENCE, isolation_level=None)
            self._db.execute(TABLE)

    def get(self, request: str) -> Answer | None:
        """Return the answer to a request, given by its digest, if there is one."""
        with self._errors():
            row = self._db.execute("select text, finish, asked, told from answers where request = ?", [request])
            found = row.fetchone()
        return found and Answer(*found)

    def keep(self, request: str, answer: Answer) -> Answer:
        """Keep an answer, on disk when this returns; returns what is kept, which may be another's."""
        with self._errors():
            self._db.execute("insert or ignore into answers values (?, ?, ?, ?, ?)", [request, *answer])
        return self.get(request) or answer

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as err:
            raise DiskError(self._path, f"the store of answers cannot be used ({err})", "free space, check it") from err
        except sqlite3.DatabaseError as err:
            raise DataError(self._path, "the store of answers is damaged", "move it away and run again") from err
