"""Exact duplicates, and the share of documents held out; both decided by content, never by position."""

import hashlib
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyclinic.corpus.step import MARK, Outcome, add_column, outcome, texts

EXACT = f"{MARK}exact"
Mask = npt.NDArray[np.bool_]


def fingerprint(language: str, text: str) -> bytes:
    """Return a digest of the language and the text without case, width and spacing, 16 bytes."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return hashlib.sha256(f"{language}\n{' '.join(plain.split())}".encode()).digest()[:16]


def mark(batch: pa.RecordBatch) -> Outcome:
    """Add the fingerprint of each document."""
    codes = batch.column("language").to_pylist()
    marks = [fingerprint(code, text) for code, text in zip(codes, texts(batch), strict=True)]
    return outcome(add_column(batch, EXACT, pa.array(marks, pa.binary(16))), [None] * len(marks))


def duplicates(marks: pa.Table, standing: Mask) -> dict[int, str]:
    """Return the rows that double another one; of equal documents the one with the smallest id stays."""
    first: dict[bytes, int] = {}
    out: dict[int, str] = {}
    names = identities(marks)
    prints = marks.column(EXACT).to_pylist()
    for row in np.flatnonzero(standing).tolist():
        other = first.setdefault(prints[row], row)
        if other == row:
            continue
        kept, gone = sorted((row, other), key=lambda at: (names[at], at))
        first[prints[row]] = kept
        out[gone] = "exact duplicate"
    return out


def identities(marks: pa.Table) -> list[tuple[str, str, str]]:
    """Return what names each row, whatever order the inputs are in."""
    return list(zip(*(marks.column(name).to_pylist() for name in ("source", "language", "id")), strict=True))


def is_held_out(group: str, share: float) -> bool:
    """Decide by a hash of the group, so that all translations of one text go the same way."""
    return _number(group) < share * 2**64


def is_validation(group: str, share: float) -> bool:
    """Decide the same for training text that is kept for validation; the two choices know nothing of each other."""
    return _number(f"validation\n{group}") < share * 2**64


def _number(text: str) -> int:
    """Return a number below 2^64 that a text has for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
