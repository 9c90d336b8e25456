"""Drop the outermost documents of each language by its own percentiles of the measures.

At most the share that a percentile names goes: of equal values all stay, where not all may go. All
cuts are made over the documents that stand before the first of them goes, so neither the order of
the measures nor that of the documents matters.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.dedup.dedup import Mask
from polyclinic.corpus.quality.measure import units_of
from polyclinic.corpus.quality.quality import ends_by_language, marked, outside, too
from polyclinic.corpus_section import DIFFICULTY, QualitySection
from polyclinic.errors import DataError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
NAMED_BY = ("source", "language", "id")
ALL_LENGTHS = ("length", *DIFFICULTY)


def beyond(marks: pa.Table, standing: Mask, section: QualitySection, root: str, counts: Counter[str]) -> dict[int, str]:
    """Return the rows beyond the percentiles of their language, with the first measure that says so.

    A percentile counts over the documents that it judges: those of `min_words` or more, but all for
    length and difficulty. Languages with too few of them are counted and left alone, as are
    documents without difficulty and what is ordinary.
    """
    percentiles, ordinary = (ends_by_language(section, kind) for kind in ("percentiles", "ordinary"))
    codes = np.array(marks.column("language").to_pylist(), dtype=object)
    column = _columns(marks, Path(root) / section.difficulty if section.difficulty else None)
    out: dict[int, str] = {}
    for code in sorted(set(codes[standing])):
        of_language = np.flatnonzero(standing & (codes == code))
        long = column("length")[of_language] >= units_of(code).of_words(section.min_words)
        for name, ends in percentiles(code).items():
            rows = of_language if name in ALL_LENGTHS else of_language[long]
            values = column(name)[rows]
            rows, values = _known(name, rows, values, counts)
            if len(rows) < section.min_documents:
                note = f"quality: {code} has too few documents for a percentile"
                counts[note] = max(counts[note], len(rows))
                continue
            odd = outside(values, ordinary(code).get(name, [None, None]), nothing=True)
            for low, gone in zip((True, False), outermost(values, *ends), strict=True):
                for row in rows[gone & odd[not low]].tolist():
                    out.setdefault(row, too(name, low))
    return out


def _known(name: str, rows: Rows, values: Floats, counts: Counter[str]) -> tuple[Rows, Floats]:
    """Leave out and count the rows whose value is not known."""
    known = np.isfinite(values)
    if not known.all():
        counts[f"quality: {name} not known"] += int((~known).sum())
    return rows[known], values[known]


def outermost(values: Floats, low: float | None, high: float | None) -> tuple[Mask, Mask]:
    """Say which values lie below percentile `low`, and which above `high`, of 0 to 100."""
    return (
        _below(values, 0.0 if low is None else low),
        _below(-values, 0.0 if high is None else 100.0 - high),
    )


def _below(values: Floats, percent: float) -> Mask:
    """Say which values are the smallest: `percent` of them at most, equal ones all or none."""
    room = math.floor(len(values) * percent / 100 + 1e-9)
    if room >= len(values):
        return np.ones(len(values), dtype=np.bool_)
    found: Mask = values < np.partition(values, room)[room]
    return found


def _columns(marks: pa.Table, difficulty: Path | None) -> Callable[[str], Floats]:
    """Return what gives a measure of all rows by name; the file of difficulty is read when it is needed."""

    @cache
    def read() -> dict[str, Floats]:
        return {} if difficulty is None else read_difficulty(difficulty, marks)

    def column(name: str) -> Floats:
        found: Floats = marks.column(marked(name)).to_numpy().astype(np.float64)
        return found

    return lambda name: read()[name] if name in DIFFICULTY else column(name)


def read_difficulty(path: Path, marks: pa.Table) -> dict[str, Floats]:
    """Return the difficulty of every row by its name, NaN where the file has none.

    Raises DataError for a file that is not one of `polyclinic evaluate difficulty`.
    """
    try:
        table = pq.read_table(path, columns=[*NAMED_BY, *DIFFICULTY])
    except (OSError, pa.ArrowException) as err:
        raise DataError(path.name, f"is no file of difficulty ({type(err).__name__})", "make it anew") from err
    place = {name: row for row, name in enumerate(_identities(table))}
    rows = np.array([place.get(name, -1) for name in _identities(marks)], dtype=np.int64)
    out = {}
    for name in DIFFICULTY:
        values = np.append(table.column(name).to_numpy().astype(np.float64), np.nan)  # -1: the last
        out[name] = values[rows]
    return out


def _identities(table: pa.Table) -> Iterator[tuple[str, ...]]:
    return zip(*(table.column(name).to_pylist() for name in NAMED_BY), strict=True)
