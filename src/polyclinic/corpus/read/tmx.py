"""TMX translation memories (TMX 1.4b), read as a stream: a unit gives a record for each of its languages.

The parser is expat with everything off that a document could use against its reader: a document
type may be named (every TMX file does) but not fetched, and one that declares entities is refused.
"""

import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from xml.parsers import expat

from polyclinic.corpus.read.rows import Row, Rows
from polyclinic.corpus.read.streams import MAX_LINE_BYTES
from polyclinic.errors import DataError

CHUNK = 1 << 16
LANGUAGE = ("xml:lang", "lang")
MARKUP = frozenset({"bpt", "ept", "it", "ph", "ut", "sub"})  # codes of an editor, not text


def tmx_rows(stream: io.BufferedReader, file: str) -> Rows:
    """Yield a record for each variant of each unit, numbered by unit; raises DataError for other XML.

    The records of a unit share `parallel_id`; a language's second variant gets an id of its own.
    """
    handler = _Handler(file)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.text
    parser.EntityDeclHandler = handler.refuse
    try:
        for data in iter(partial(stream.read, CHUNK), b""):
            parser.Parse(data, False)
            yield from handler.take()
        parser.Parse(b"", True)
        yield from handler.take()
    except expat.ExpatError as err:
        where = f"{file}:{err.lineno}"
        raise DataError(where, f"not XML ({expat.errors.messages[err.code]})", "correct the file") from err
    if not handler.is_tmx:
        raise DataError(file, "XML, but not TMX", "give a file whose outermost element is <tmx>")


class _Handler:
    """Gathers the units that end in a piece of the file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._done: list[Row] = []
        self._number = 0
        self._id: str | None = None
        self._variants: list[tuple[str | None, str]] = []
        self._language: str | None = None
        self._pieces: list[str] | None = None
        self._size = 0
        self._markup = 0
        self.is_tmx = False

    def take(self) -> list[Row]:
        done, self._done = self._done, []
        return done

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.is_tmx and name == "tmx":
            self.is_tmx = True
        if name == "tu":
            self._number += 1
            self._id, self._variants, self._size = attributes.get("tuid"), [], 0
        elif name == "tuv":
            self._language = next((attributes[key] for key in LANGUAGE if key in attributes), None)
        elif name == "seg":
            self._pieces = []
        self._markup += name in MARKUP

    def text(self, data: str) -> None:
        if self._pieces is not None and not self._markup:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > MAX_LINE_BYTES:
                where = f"{self._file}:{self._number}"
                raise DataError(where, f"a unit of more than {MAX_LINE_BYTES} characters", "split it")

    def end(self, name: str) -> None:
        self._markup -= name in MARKUP
        if name == "seg" and self._pieces is not None:
            self._variants.append((self._language, "".join(self._pieces)))
            self._pieces = None
        elif name == "tu":
            self._done += [Row(self._file, self._number, record) for record in self._records()]

    def _records(self) -> Iterator[dict[str, Any]]:
        name = self._id or f"{self._file}:{self._number}"
        seen: Counter[str | None] = Counter()
        for code, text in self._variants:
            seen[code] += 1
            identity = name if seen[code] == 1 else f"{name}#{seen[code]}"
            yield {"id": identity, "parallel_id": name, "language": code, "text": text}

    def refuse(self, name: str, *_: Any) -> None:
        raise DataError(self._file, "declares an entity, which could hold anything", "remove its <!ENTITY ...>")
