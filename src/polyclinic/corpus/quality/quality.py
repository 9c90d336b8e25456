"""Measure every document, and drop at once what lies outside fixed limits.

The measures go along as marks, by which `percentiles.py` rules over a whole language.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyclinic.corpus.quality import terms
from polyclinic.corpus.quality.characters import Characters
from polyclinic.corpus.quality.measure import MEASURES, Values, measure, units_of
from polyclinic.corpus.step import MARK, Outcome, add_column, outcome, texts
from polyclinic.corpus_section import CorpusSection, Ends, QualitySection
from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.runs import sha256_file

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def marked(measure: str) -> str:
    """Return the name of a measure's column."""
    return f"{MARK}quality_{measure}"


def too(measure: str, low: bool) -> str:
    """Return the reason for which a document goes."""
    return f"quality: {measure} {'low' if low else 'high'}"


def digests(section: CorpusSection) -> dict[str, str]:
    """Return the SHA-256 of each file the section names; raises DataError where one is not there."""
    named = {} if section.quality is None else section.quality.model_dump(include={"terms", "difficulty"})
    out = {}
    for name, value in named.items():
        if value is not None:
            path = Path(section.root) / value
            if not path.is_file():
                raise DataError(path, "no such file", f"check corpus.root and corpus.quality.{name}")
            out[name] = sha256_file(path)
    return out


def ends_by_language(section: QualitySection, kind: str) -> Callable[[str], dict[str, Ends]]:
    """Return what gives the `limits`, `percentiles` or `ordinary` ends of a language: its own, over those of all."""
    general: dict[str, Ends] = getattr(section, kind).given()
    own = {language(code).code: getattr(value, kind).given() for code, value in section.per_language.items()}
    return lambda code: general | own.get(code, {})


def mark(batch: pa.RecordBatch, section: QualitySection, root: str) -> Outcome:
    """Add every measure of each document as float32 columns; drop what lies outside the limits of its language."""
    codes = np.array(batch.column("language").to_pylist(), dtype=object)
    found = {name: np.zeros(len(codes), dtype=np.float32) for name in MEASURES}
    reasons: list[str | None] = [None] * len(codes)
    known = terms.load(Path(root) / section.terms if section.terms else None)
    written, limits = texts(batch), ends_by_language(section, "limits")
    for code in sorted(set(codes)):
        rows = np.flatnonzero(codes == code)
        cover = known[code].covered if code in known else _nothing
        for name, values in measure([written[row] for row in rows], units_of(code), cover).items():
            found[name][rows] = values
        long = found["length"][rows] >= units_of(code).of_words(section.min_words)
        for name, ends in limits(code).items():
            judged = rows if name == "length" else rows[long]
            for low, gone in zip((True, False), outside(found[name][judged], ends), strict=True):
                for row in judged[gone].tolist():
                    reasons[row] = reasons[row] or too(name, low)
    for name, column in found.items():
        batch = add_column(batch, marked(name), pa.array(column))
    return outcome(batch, reasons)


def _nothing(characters: Characters) -> Values:
    return np.zeros(characters.count)


def outside(values: Floats, ends: Ends, nothing: bool = False) -> tuple[Mask, Mask]:
    """Say which values lie below the low end, and which above the high one; `nothing` is said where there is none."""
    low, high = ends
    plain = np.full(len(values), nothing)
    return plain if low is None else values < low, plain if high is None else values > high
