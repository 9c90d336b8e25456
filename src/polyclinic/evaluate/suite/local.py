"""Exams that are files of JSON lines below POLYCLINIC_DATA."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import DataError
from polyclinic.evaluate.suite.rows import Place, Record, to_record, wanted
from polyclinic.evaluate.suite.table import LANGUAGE, Exam

VARIABLE = "POLYCLINIC_DATA"
SET = f"set {VARIABLE} to the folder that holds exams and text"


class Line(NamedTuple):
    """One record and the number of its line."""

    number: int
    row: Mapping[str, Any]


def data_folder(root: Path | None = None) -> Path:
    """Return the folder of local exams; raises DataError where none is named or there."""
    named = root or os.environ.get(VARIABLE)
    if not named:
        raise DataError(VARIABLE, "is not set", f"{SET}, or name other exams")
    if not Path(named).is_dir():
        raise DataError(named, "is no folder", SET)
    return Path(named)


def records(exam: Exam, code: str, root: Path | None, left_out: Counter[str]) -> list[Record]:
    """Return an exam's records of all its splits in one language; counts what is left out.

    Raises DataError naming the file, and the line where there is one.
    """
    path = data_folder(root) / exam.file
    out = []
    for number, row in lines(path):
        if row.get("language") != code or not wanted(row, exam, code):
            continue
        where, split = f"{path}:{number}", str(row.get("split") or "")
        if split not in (exam.split, *exam.shots):
            continue
        found = to_record(row, exam, Place(where, f"{path.stem}-{number}", code, split))
        if isinstance(found, str):
            left_out[found] += 1
        else:
            out.append(found)
    return out


def lines(path: Path) -> list[Line]:
    """Return the records of a file; it is read once while it does not change."""
    try:
        state = path.stat()
    except OSError as err:
        what = "no such file" if isinstance(err, FileNotFoundError) else (err.strerror or "cannot be read").lower()
        raise DataError(path, what, f"{VARIABLE} names another folder, or the file is missing there") from err
    return _lines(path, state.st_mtime_ns, state.st_size)


def file_of(exam: Exam, code: str) -> str:
    """Return the file of an exam in a language, below the folder of data."""
    return exam.file.replace(LANGUAGE, code)


@lru_cache(maxsize=4)
def _lines(path: Path, _changed: int, _size: int) -> list[Line]:
    return list(_read(path))


def _read(path: Path) -> Iterator[Line]:
    for number, data in enumerate(path.read_bytes().splitlines(), 1):
        if not data.strip():
            continue
        try:
            row = json.loads(data.decode("utf-8"))
        except UnicodeDecodeError as err:
            raise DataError(f"{path}:{number}", f"byte {err.start} is not UTF-8", "convert the file") from err
        except (ValueError, RecursionError) as err:
            raise DataError(f"{path}:{number}", "not a JSON object on one line", "correct the line") from err
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}", "a JSON value that is not an object", "correct the line")
        yield Line(number, row)
