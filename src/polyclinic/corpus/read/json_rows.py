"""JSON lines, and one JSON array read item by item, into raw records."""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from polyclinic.corpus.read.rows import Bad, Part, Row, Rows, bad, too_long
from polyclinic.corpus.read.streams import MAX_LINE_BYTES, lines
from polyclinic.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
CHUNK = 1 << 20


def json_rows(stream: io.BufferedReader, file: str, part: Part | None = None) -> Rows:
    """Read one object a line; a broken line costs itself alone."""
    if part:
        stream.seek(part.start)
    for number, line in lines(stream, part.first_line if part else 1, part.end if part else None):
        if line is None:
            yield too_long(file, number)
        elif line.strip():
            yield _json_object(file, number, line)


def _json_object(file: str, number: int, line: bytes) -> Row | Bad:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as err:
        return bad(file, number, "not UTF-8", f"byte {err.start} is not UTF-8", "convert the file to UTF-8")
    except (ValueError, RecursionError):
        cut = "" if line.endswith(b"\n") else ", and the file ends in it: is it cut short?"
        return bad(file, number, "not JSON", f"not a JSON object on one line{cut}", "correct or remove the line")
    return _object(file, number, value)


def _object(file: str, number: int, value: Any) -> Row | Bad:
    if isinstance(value, dict):
        return Row(file, number, value)
    return bad(file, number, "no object", "a JSON value that is not an object", "write records as objects")


def array_rows(stream: io.BufferedReader, file: str) -> Rows:
    """Read one JSON array item by item; numbers are those of the items."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    more = iter(partial(stream.read, CHUNK), b"")
    text, at, number = "", 0, 0

    def skip_space() -> str:
        """Go to the next character that is none, and return it, or nothing at the end."""
        nonlocal text, at
        while (at := SPACE.match(text, at).end()) == len(text):  # type: ignore[union-attr]
            data = next(more, None)
            if data is None:
                return ""
            text, at = decode(data), 0
            text = text.removeprefix("\ufeff") if number == 0 else text
        return text[at]

    if skip_space() != "[":
        raise DataError(file, "is no JSON array", "write [ {...}, ... ], or name JSON lines .jsonl")
    at += 1
    if skip_space() == "]":
        return
    separator = ","
    while separator == ",":
        number += 1
        skip_space()
        value, text, at = _item(file, number, text, at, more, decode)
        yield _object(file, number, value)
        separator = skip_space()
        at += 1
    if separator != "]" or skip_space():
        raise DataError(f"{file}:{number}", "the array does not go on or end after this item", "is it cut short?")


def _item(
    file: str, number: int, text: str, at: int, more: Iterator[bytes], decode: Callable[[bytes], str]
) -> tuple[Any, str, int]:
    """Return the item that begins at a place, and the text and place after it; reads on as far as it must."""
    while True:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError) as err:
            pieces, wanted = [text[at:]], len(text) - at
            for data in more:
                pieces.append(decode(data))
                if (wanted := wanted - len(pieces[-1])) <= 0:  # twice as much as before
                    break
            if len(pieces) == 1 or len(pieces[0]) > MAX_LINE_BYTES or isinstance(err, RecursionError):
                what = "not a JSON value, or cut short, or too long"
                raise DataError(f"{file}:{number}", what, "correct the file") from err
            text, at = "".join(pieces), 0
        else:
            return value, text, end
