"""One figure of the page: its number, what it says, how to read it, its table; the same as SVG, PNG and CSV."""

import csv
from collections.abc import Iterable, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from polyclinic import figures
from polyclinic.languages import all_languages, language
from polyclinic.markup import Fragment, details, native, number, table
from polyclinic.runs import write_bytes

ROWS = 500  # of a table on the page; the file has all


class Code(str):
    """A language code in a cell: shown with the language's own name."""

    __slots__ = ()


class Word(NamedTuple):
    """Text in a language: shown in its script and direction; None is part of a character."""

    text: str | None
    code: str | None


Cell = Code | Word | str | int | float | None


class Plate(NamedTuple):
    """A figure; `rows` are plain values, and all of it that is written as CSV.

    `shown` is the table on the page where it is not simply the rows.
    """

    name: str  # of its files
    title: str
    says: str  # the figure in a number
    read: str  # one sentence
    n: int
    of: str  # what n counts
    drawing: figures.Picture
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shown: str | None = None


class Part(NamedTuple):
    """A section: its plates, folded ones after the others, and what is said besides."""

    title: str
    lead: str
    plates: Sequence[Plate]
    html: str = ""
    folded: Sequence[Plate] = ()


def cell(value: Cell) -> str:
    """Return a value as HTML: three decimals, thousands apart, languages and tokens in their script."""
    if isinstance(value, Code):
        return _named(value)
    if isinstance(value, Word):
        return _spelt(value)
    if isinstance(value, str):
        return escape(value)
    if value is None:
        return number(None)
    return f"{value:,}" if isinstance(value, int) else number(value, 3)


def _table_cell(value: Cell) -> str:
    return f'<td class="text">{cell(value)}</td>' if isinstance(value, str | Word) else cell(value)


def _named(code: str) -> str:
    if code not in all_languages():
        return escape(code)
    entry = language(code)
    return f"{escape(code)} {native(entry)} <small>{escape(entry.name)}</small>"


def _spelt(word: Word) -> str:
    if word.text is None:
        return "<small>part of a character</small>"
    text = word.text.replace(" ", "\u2423").replace("\n", "\u23ce").replace("\t", "\u21e5")
    if word.code in all_languages():
        return native(language(str(word.code)), text)
    return f"<bdi>{escape(text)}</bdi>"


def html_of(plate: Plate, place: int) -> str:
    """Return a plate for the page: drawing, caption, and its table folded."""
    shown = plate.shown
    if shown is None:
        few = plate.rows[:ROWS]
        shown = table([escape(one) for one in plate.head], [[_table_cell(v) for v in row] for row in few])
        if len(plate.rows) > ROWS:
            shown += f"<p>The first {ROWS:,} of {len(plate.rows):,} rows; all are in {escape(plate.name)}.csv.</p>"
    caption = (
        f"<b>Figure {place}. {escape(plate.title)}.</b> {escape(plate.says)} "
        f"({plate.n:,} {escape(plate.of)}) {escape(plate.read)}"
    )
    drawn = f'<div class="wide drawn">{plate.drawing.svg}</div>'
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>" + details(f"Figure {place} as a table", shown)


def fragment_of(part: Part, first: int) -> Fragment:
    """Return a section of the page whose figures are numbered from `first` on."""
    shown = "".join(html_of(plate, first + i) for i, plate in enumerate(part.plates))
    after = first + len(part.plates)
    folded = "".join(details(plate.title, html_of(plate, after + i)) for i, plate in enumerate(part.folded))
    return Fragment(part.title, part.lead, part.html + shown + folded)


def fragments_of(parts: Iterable[Part]) -> list[Fragment]:
    """Return sections whose figures are numbered through."""
    out, place = [], 1
    for part in parts:
        out.append(fragment_of(part, place))
        place += len(part.plates) + len(part.folded)
    return out


def csv_of(plate: Plate) -> str:
    """Return the rows of a plate in full precision."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(plate.head)
    writer.writerows([_raw(value) for value in row] for row in plate.rows)
    return out.getvalue()


def _raw(value: Cell) -> str:
    text = value.text if isinstance(value, Word) else value
    return "" if text is None else str(text)


def write_files(parts: Iterable[Part], folder: Path) -> int:
    """Write every plate as SVG, PNG and CSV; returns how many plates there are."""
    folder.mkdir(exist_ok=True)
    plates = [plate for part in parts for plate in (*part.plates, *part.folded)]
    for plate in plates:
        write_bytes(folder / f"{plate.name}.svg", plate.drawing.svg.encode())
        write_bytes(folder / f"{plate.name}.png", plate.drawing.png)
        write_bytes(folder / f"{plate.name}.csv", csv_of(plate).encode())
    return len(plates)
