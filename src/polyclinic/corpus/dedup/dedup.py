"""Duplicates, exact and near, and the share of documents held out; decided by content, never by position."""

import hashlib
import itertools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from rensa import RMinHash

from polyclinic.corpus.dedup.clusters import WIDTH, Signatures, nearest
from polyclinic.corpus.step import MARK, Outcome, add_column, outcome, texts
from polyclinic.corpus.units import Ints, plain, tokens, windows
from polyclinic.corpus_section import DedupSection

EXACT, NEAR = f"{MARK}exact", f"{MARK}near"
SHINGLE = 5  # tokens
SEED = 42
Mask = npt.NDArray[np.bool_]


def fingerprint(language: str, text: str) -> bytes:
    """Return a digest of the language and the text without case, width and spacing, 16 bytes."""
    return _fingerprint(language, plain(text))


def _fingerprint(language: str, plain_text: str) -> bytes:
    return hashlib.sha256(f"{language}\n{evenly_spaced(plain_text)}".encode()).digest()[:16]


def evenly_spaced(text: str) -> str:
    """Return `" ".join(text.split())`, without taking apart a text that is so but for its line ends."""
    line = text.replace("\n", " ")
    # All white space but U+0020 is not printable.
    if line.isprintable() and "  " not in line and line[:1] != " " and line[-1:] != " ":
        return line
    return " ".join(text.split())


def mark(batch: pa.RecordBatch, section: DedupSection) -> Outcome:
    """Add the fingerprint of each document and, if asked, its signature (none for short texts)."""
    codes = batch.column("language").to_pylist()
    plains = [plain(text) for text in texts(batch)]
    exact = [_fingerprint(code, text) for code, text in zip(codes, plains, strict=True)]
    marked = add_column(batch, EXACT, pa.array(exact, pa.binary(16)))
    if section.near:
        marked = add_column(marked, NEAR, signatures(plains, section.shortest))
    return outcome(marked, [None] * len(plains))


def signatures(plains: list[str], shortest: int) -> pa.Array:
    """Return the low bytes of MinHash values of 5-token shingles; null below `shortest` tokens."""
    units = tokens(plains)
    found = windows(units, SHINGLE)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(found.hashes, found.offsets, WIDTH, SEED)
    values = itertools.chain.from_iterable(matrix.to_rows())
    low = np.fromiter(values, dtype=np.uint32, count=len(plains) * WIDTH).astype(np.uint8)
    whole = pa.Array.from_buffers(pa.binary(WIDTH), len(plains), [None, pa.py_buffer(low)])
    short = units.sizes() < max(shortest, SHINGLE)
    return pa.compute.if_else(pa.array(short), pa.scalar(None, pa.binary(WIDTH)), whole)


def duplicates(marks: pa.Table, standing: Mask, section: DedupSection) -> dict[int, str]:
    """Return the rows that double another one; of a cluster the document with the smallest id stays.

    Its split does not matter: what is kept is in one split, so nothing held out is trained on.
    """
    order = names_in_order(marks)
    rows = order[standing[order]]
    equal = exact(marks, rows)
    gone = dict.fromkeys(rows[equal != np.arange(rows.size)].tolist(), "exact duplicate")
    if section.near:
        rows = rows[equal == np.arange(rows.size)]
        rows = rows[marks.column(NEAR).is_valid().to_numpy()[rows]]
        alike = near(marks, rows, section.similarity)
        gone |= dict.fromkeys(rows[alike != np.arange(rows.size)].tolist(), "near duplicate")
    return gone


def names_in_order(marks: pa.Table) -> Ints:
    """Return the rows ordered by what names them, whatever order the inputs are in."""
    names = [(name, "ascending") for name in ("source", "language", "id", EXACT)]
    return np.asarray(pa.compute.sort_indices(marks, names)).astype(np.int64)


def exact(marks: pa.Table, rows: Ints) -> Ints:
    """Return for each of the rows the first one among them with the same fingerprint."""
    prints = np.ascontiguousarray(_bytes(marks.column(EXACT), 16)[rows]).view(np.uint64)
    order = np.lexsort((prints[:, 1], prints[:, 0]))
    begins = np.ones(rows.size, dtype=np.bool_)
    begins[1:] = (prints[order[1:]] != prints[order[:-1]]).any(axis=1)
    first = np.empty(rows.size, dtype=np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]  # the sort is stable: the first row leads
    return first


def near(marks: pa.Table, rows: Ints, least: float) -> Ints:
    """Return for each of the rows, all with a signature, the first one of its cluster."""
    signed = np.ascontiguousarray(_bytes(marks.column(NEAR), WIDTH)[rows])
    return nearest(signed, _languages(marks)[rows], least)


def _languages(marks: pa.Table) -> Ints:
    """Return a number for the language of each row."""
    column = marks.column("language").combine_chunks().dictionary_encode()
    return np.asarray(column.indices).astype(np.int64)


def _bytes(column: pa.ChunkedArray, width: int) -> Signatures:
    """Return a column of fixed-size binary as an array [rows, width] of bytes; nulls hold anything."""
    parts = [np.empty((0, width), dtype=np.uint8)]
    for chunk in column.chunks:
        whole = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[chunk.offset * width :]
        parts.append(whole[: len(chunk) * width].reshape(-1, width))
    return np.concatenate(parts)


def is_held_out(group: str, share: float) -> bool:
    """Decide by a hash of the group, so that all translations of one text go the same way."""
    return _number(group) < share * 2**64


def is_validation(group: str, share: float) -> bool:
    """Decide the same for training text that is kept for validation; the two choices know nothing of each other."""
    return _number(f"validation\n{group}") < share * 2**64


def _number(text: str) -> int:
    """Return a number below 2^64 that a text has for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
