"""Files of every kind into raw records, each with the line where it stands.

A record that is broken comes as an error in its place, so that whoever reads may go on with the
next one; a file that is broken as a whole raises. Nothing here knows what the fields mean.
"""

from collections.abc import Callable
from pathlib import Path

from polyclinic.corpus.read.json_rows import array_rows, json_rows
from polyclinic.corpus.read.rows import Bad, Part, Row, Rows
from polyclinic.corpus.read.streams import Kind, kind, open_bytes
from polyclinic.corpus.read.table_rows import arrow_rows, parquet_rows
from polyclinic.corpus.read.text_rows import csv_rows, text_rows
from polyclinic.corpus.read.tmx import tmx_rows
from polyclinic.errors import DataError

__all__ = ["KINDS", "Bad", "Part", "Row", "Rows", "rows"]

TABLES: dict[str, Callable[[Path, str, Part | None], Rows]] = {".parquet": parquet_rows, ".arrow": arrow_rows}
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".tmx", *TABLES)


def rows(path: Path, part: Part | None = None, file: str | None = None, unit: str = "file") -> Rows:
    """Yield the raw records of a file, or of a part of it, called `file` in errors.

    `unit` is what one document of plain text is. Raises DataError for a file that is missing, of
    no known kind, broken as a whole, or without any record.
    """
    file = file or path.name
    if not path.is_file():
        raise DataError(file, "no such file", "check corpus.root and the path")
    known = kind(path, file)
    if known.format not in KINDS:
        raise DataError(file, f"unknown kind of file '{path.suffix}'", f"give one of {', '.join(KINDS)}")
    found = False
    for row in _rows(path, known, file, part, unit):
        found = True
        yield row
    if not found and part is None:
        raise DataError(file, "holds no record", "remove it or correct the path")


def _rows(path: Path, known: Kind, file: str, part: Part | None, unit: str) -> Rows:
    if known.format in TABLES:
        if known.compression:
            raise DataError(file, "is compressed as a whole", "unpack it; it is compressed inside")
        yield from TABLES[known.format](path, file, part)
        return
    with open_bytes(path, file, known.compression) as stream:
        if known.format == ".jsonl":
            yield from json_rows(stream, file, part)
        elif known.format == ".json":
            yield from array_rows(stream, file)
        elif known.format == ".txt":
            yield from text_rows(stream, file, unit)
        elif known.format == ".tmx":
            yield from tmx_rows(stream, file)
        else:
            yield from csv_rows(stream, file, tabs=known.format == ".tsv")
