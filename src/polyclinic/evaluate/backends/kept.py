"""Answers are kept by what was asked: nothing is scored twice, and a killed run goes on where it was.

One SQLite file in a folder of the run. Requests are answered in chunks whose borders depend on the
list of requests alone, and each chunk is committed when it is answered. Every row carries a digest
of itself, so that a damaged file is never read as an answer.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from polyclinic.errors import DataError, DiskError
from polyclinic.progress import Progress, Silent
from polyclinic.runs import RunFolder, digest, fsync_folder

FILE = "answers.sqlite"
LOCK = "answers.lock"
CHUNKS = {"generate_until": 32, "loglikelihood": 256, "loglikelihood_rolling": 64}  # requests
VERSION = 1
TABLE = "create table if not exists answers (key text primary key, value text not null, sum text not null)"


class Damaged(DataError):
    """The file is not what this module wrote."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "is damaged", "run again: it is set aside, and its questions are asked again")


class Store:
    """Answers by key. Use `opened`, which holds the lock and sets a damaged file aside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(path, isolation_level=None)
            if self._db.execute("pragma user_version").fetchone()[0] not in (0, VERSION):
                raise Damaged(path)
            self._db.execute(TABLE)
            self._db.execute(f"pragma user_version = {VERSION}")
            if self._db.execute("pragma quick_check").fetchone()[0] != "ok":
                raise Damaged(path)

    def get(self, key: str) -> Any:
        """Return the answer that is kept, None where there is none; raises Damaged for one that was changed."""
        with self._errors():
            row = self._db.execute("select value, sum from answers where key = ?", [key]).fetchone()
        if row is None:
            return None
        if row[1] != digest([key, row[0]]):
            raise Damaged(self._path)
        return json.loads(row[0])

    def check(self) -> None:
        """Raise Damaged unless every row is as it was written."""
        with self._errors():
            for key, value, total in self._db.execute("select key, value, sum from answers"):
                if total != digest([key, value]):
                    raise Damaged(self._path)

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Keep answers, on disk when this returns, all or none of them."""
        values = {key: json.dumps(answer) for key, answer in answers.items()}
        rows = [(key, value, digest([key, value])) for key, value in values.items()]
        with self._errors():
            self._db.execute("begin")
            self._db.executemany("insert or replace into answers values (?, ?, ?)", rows)
            self._db.execute("commit")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as err:
            raise DiskError(self._path, f"answers cannot be kept ({err})", "free space, check permissions") from err
        except (sqlite3.DatabaseError, UnicodeDecodeError) as err:
            raise Damaged(self._path) from err


class Kept(LM):
    """A model whose answers are kept. `facts` are all that decides an answer beside the request."""

    def __init__(self, model: LM, store: Store, facts: Mapping[str, Any], progress: Progress | None = None) -> None:
        super().__init__()
        self.model, self._store = model, store
        self._facts = digest(dict(facts))
        self._progress = progress or Silent()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return nats and greediness of each request, kept or asked now."""
        return [(float(nats), bool(greedy)) for nats, greedy in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the nats of whole texts, kept or asked now."""
        return [float(nats) for nats in self._answers("loglikelihood_rolling", requests)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return what was written after each request, kept or asked now."""
        return [str(text) for text in self._answers("generate_until", requests)]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        """Put a conversation as the model does."""
        return self.model.apply_chat_template(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> Any:
        """Return the model's own template."""
        return self.model.chat_template(chat_template)

    @property
    def tokenizer_name(self) -> str:
        """Return the name of the model's tokenizer."""
        return str(self.model.tokenizer_name)

    def _answers(self, kind: str, requests: Sequence[Instance]) -> list[Any]:
        keys = self._keys(kind, requests)
        out: list[Any] = []
        for chunk in chunks(requests, CHUNKS[kind]):
            out += self._chunk(kind, {keys[i]: requests[i] for i in chunk}, [keys[i] for i in chunk])
            self._progress.advance(len(out), len(requests), "answers")
        return out

    def _keys(self, kind: str, requests: Sequence[Instance]) -> list[str]:
        """Return what each request is kept by; drawn texts of the same request are told apart by their number."""
        seen: dict[str, int] = {}
        out = []
        for request in requests:
            language = request.doc.get("language") if isinstance(request.doc, dict) else None
            key = digest([self._facts, kind, language, request.args])
            number = seen[key] = seen.get(key, 0) + 1
            drawn = kind == "generate_until" and request.args[1].get("do_sample")
            out.append(digest([key, number]) if drawn else key)
        return out

    def _chunk(self, kind: str, asked: Mapping[str, Instance], keys: Sequence[str]) -> list[Any]:
        found = {key: self._store.get(key) for key in asked}
        missing = [key for key in asked if found[key] is None]
        if missing:
            new = getattr(self.model, kind)([asked[key] for key in missing])
            answers = dict(zip(missing, new, strict=True))
            self._store.keep(answers)
            found |= answers
        return [found[key] for key in keys]


def chunks(requests: Sequence[Instance], size: int) -> Iterator[range]:
    """Yield ranges of about so many requests that part no document from its other requests."""
    begin = 0
    for end in range(1, len(requests) + 1):
        whole = end == len(requests) or requests[end].doc is not requests[end - 1].doc
        if (whole and end - begin >= size) or end == len(requests):
            yield range(begin, end)
            begin = end


@contextmanager
def opened(folder: Path, say: Callable[[str], None] = lambda message: None) -> Iterator[Store]:
    """Open the answers of a folder for this process alone; a damaged file is set aside, and what it held asked anew.

    Raises BusyError while another process has them, DiskError where they cannot be kept.
    """
    with RunFolder.open(folder, LOCK):
        path = folder / FILE
        store = _sound(path)
        if store is None:
            aside = _set_aside(path)
            say(f"{path}: is damaged; set aside as {aside.name}, its questions are asked again")
            store = Store(path)
        try:
            yield store
        finally:
            store.close()


def _sound(path: Path) -> Store | None:
    """Return the store, each of its rows checked, or None."""
    store = None
    try:
        store = Store(path)
        store.check()
    except Damaged:
        if store is not None:
            store.close()
        return None
    return store


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    path.rename(aside)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    fsync_folder(path.parent)
    return aside
