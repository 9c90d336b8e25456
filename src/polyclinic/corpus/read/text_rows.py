"""Tables (CSV, TSV) and plain text into raw records."""

import csv
import io
from collections.abc import Iterable, Iterator

from polyclinic.corpus.read.rows import Row, Rows, bad, too_long
from polyclinic.corpus.read.streams import BOM, MAX_LINE_BYTES, lines
from polyclinic.errors import DataError


def csv_rows(stream: io.BufferedReader, file: str, tabs: bool) -> Rows:
    """Read a table with a header; `tabs`: cells between tabs, where a quote means nothing.

    Where a quote is broken nobody knows the next record, so that raises DataError.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    found = _decoded(stream, file)
    table = csv.reader(found, csv.excel_tab, quoting=csv.QUOTE_NONE) if tabs else csv.reader(found, strict=True)
    number, header = 1, None
    try:
        for cells in table:
            if header is None:
                header = _header(file, cells)
            elif cells and len(cells) != len(header):
                what = f"{len(cells)} cells, the header has {len(header)}"
                yield bad(file, number, "another number of cells", what)
            elif cells:
                yield Row(file, number, dict(zip(header, cells, strict=True)))
            number = table.line_num + 1
    except csv.Error as err:
        raise DataError(f"{file}:{number}", f"no table ({err})", "write the table again, quotes doubled") from err


def _header(file: str, cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells) or not all(cell.strip() for cell in cells):
        raise DataError(f"{file}:1", "the header has a column without a name, or one twice", "name each column once")
    return cells


def _decoded(stream: io.BufferedReader, file: str) -> Iterator[str]:
    """Yield lines as text; bytes that are not UTF-8 stay visible as half characters, for their record alone."""
    for number, line in lines(stream):
        if line is None:
            raise DataError(f"{file}:{number}", f"the line has more than {MAX_LINE_BYTES} bytes", "split it")
        if b"\0" in line:
            raise DataError(f"{file}:{number}", "a NUL byte, which is no text", "convert the file to UTF-8")
        yield line.decode("utf-8", "surrogateescape")


def text_rows(stream: io.BufferedReader, file: str, unit: str) -> Rows:
    """Read plain text: the file, each paragraph (between blank lines) or each line is a document."""
    if unit == "file":
        data = stream.read(MAX_LINE_BYTES + 1)
        if len(data) > MAX_LINE_BYTES:
            raise DataError(file, f"one text of more than {MAX_LINE_BYTES} bytes", "take it by unit: paragraph")
        if b"\0" in data:
            raise DataError(file, "a NUL byte, which is no text", "convert the file to UTF-8")
        if data.removeprefix(BOM).strip():
            yield Row(file, 1, {"text": data.removeprefix(BOM).decode("utf-8", "surrogateescape")})
        return
    for number, text in _paragraphs(_decoded(stream, file), 1 if unit == "line" else None):
        if len(text) > MAX_LINE_BYTES:
            yield too_long(file, number)
        else:
            yield Row(file, number, {"text": text})


def _paragraphs(found: Iterable[str], most: int | None) -> Iterator[tuple[int, str]]:
    """Yield runs of lines that are not blank, at most `most` lines each, with the number of the first."""
    held: list[str] = []
    number = 0
    for number, line in enumerate(found, start=1):
        if line.strip():
            held.append(line)
        if held and (len(held) == most or not line.strip()):
            yield number - len(held) + bool(line.strip()), "".join(held)
            held = []
    if held:
        yield number - len(held) + 1, "".join(held)
