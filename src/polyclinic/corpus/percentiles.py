"""Drop the outermost documents of each language by its own percentiles of the measures.

At most the share that a percentile names goes: of equal values all stay, where not all may go. All
cuts are made over the documents that stand before the first of them goes, so neither the order of
the measures nor that of the documents matters.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.dedup import Mask
from polyclinic.corpus.quality import ends_by_language, marked, too
from polyclinic.corpus_section import DIFFICULTY, QualitySection
from polyclinic.errors import DataError

Floats = npt.NDArray[np.float64]
NAMED_BY = ("source", "language", "id")


def beyond(marks: pa.Table, standing: Mask, section: QualitySection, root: str, counts: Counter[str]) -> dict[int, str]:
    """Return the rows beyond the percentiles of their language, with the first measure that says so.

    Languages with too few documents, and documents without difficulty, are counted and left alone.
    """
    percentiles = ends_by_language(section, "percentiles")
    codes = np.array(marks.column("language").to_pylist(), dtype=object)
    column = _columns(marks, Path(root) / section.difficulty if section.difficulty else None)
    out: dict[int, str] = {}
    for code in sorted(set(codes[standing])):
        rows = np.flatnonzero(standing & (codes == code))
        if len(rows) < section.min_documents and percentiles(code):
            counts[f"quality: {code} has too few documents for percentiles"] += len(rows)
            continue
        for name, ends in percentiles(code).items():
            values = column(name)[rows]
            known = np.isfinite(values)
            if not known.all():
                counts[f"quality: {name} not known"] += int((~known).sum())
            for low, gone in zip((True, False), outermost(values[known], *ends), strict=True):
                for row in rows[known][gone].tolist():
                    out.setdefault(row, too(name, low))
    return out


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
    place = {name: row for row, name in enumerate(identities(table))}
    rows = np.array(
        [place.get(name, -1) for name in zip(*(marks.column(name).to_pylist() for name in NAMED_BY), strict=True)],
        dtype=np.int64,
    )
    out = {}
    for name in DIFFICULTY:
        values = np.append(table.column(name).to_numpy().astype(np.float64), np.nan)  # -1: the last
        out[name] = values[rows]
    return out
