"""Mark the documents that hold exam items: word for word, or most of one in one place.

Blocks of the exams are looked up at every position of every document of a batch at once; only the few
documents that share several blocks with one item are then compared with it unit by unit. So no
verdict rests on a hash.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyclinic.corpus.leaks.exams import Exams, Lengths, lengths, load, lookup, units
from polyclinic.corpus.step import MARK, Outcome, add_column, outcome, texts
from polyclinic.corpus.units import Ints, UInts, Units, plain, running
from polyclinic.corpus_section import DecontaminateSection

LEAK, WAY = f"{MARK}leak", f"{MARK}way"
VERBATIM, OVERLAP = "verbatim", "overlap"
BLOCKS_NEEDED = 3  # shared with one piece, before the two are compared
NEAR_BY = 4  # a question and its right option are at most so many runs apart
SHIFT = 4  # words put in or left out move the rest by at most this part of the question

Mask = npt.NDArray[np.bool_]
Found = dict[int, str]  # item -> way


def mark(batch: pa.RecordBatch, folder: Path, section: DecontaminateSection) -> Outcome:
    """Add to each document the numbers of the exam items it holds, and for each in which way."""
    exams = load(folder, section.unit)
    plains = [plain(text) if exams.blocks else "" for text in texts(batch)]
    plans: dict[Lengths, list[int]] = {}
    for row, code in enumerate(batch.column("language").to_pylist()):
        plans.setdefault(lengths(code, section), []).append(row)
    found: list[Found] = [{} for _ in plains]
    for plan, rows in plans.items():
        searched = units([plains[row] for row in rows], section.unit)
        for at, item, way in search(searched, plan, exams, section.overlap):
            known = found[rows[at]]
            known[item] = min(way, known.get(item, way), key=(VERBATIM, OVERLAP).index)
    items = pa.array([sorted(known) for known in found], pa.list_(pa.int32()))
    ways = pa.array([[known[item] for item in sorted(known)] for known in found], pa.list_(pa.string()))
    counts = Counter({"leak: documents with exam items": sum(map(bool, found))})
    return outcome(add_column(add_column(batch, LEAK, items), WAY, ways), [None] * len(plains), +counts)


def search(texts_: Units, plan: Lengths, exams: Exams, overlap: float) -> Iterator[tuple[int, int, str]]:
    """Yield (text, item, way) for each exam item that a text holds."""
    blocks = exams.blocks.get(plan.block)
    if blocks is None:
        return
    at, row = lookup(blocks, running(texts_.values, plan.block))
    text = np.searchsorted(texts_.offsets, at, "right") - 1
    inside = at + plan.block <= texts_.offsets[text + 1]
    at, row, text = at[inside], row[inside], text[inside]
    piece, diagonal = blocks.piece[row], at - texts_.offsets[text] - blocks.start[row]
    for hits in _candidates(text * len(exams.piece_item) + piece, row, exams.blocks_of[piece]):
        number, wanted = int(text[hits[0]]), int(piece[hits[0]])
        way = judge(texts_.of(number), exams, wanted, diagonal[hits], plan, overlap)
        if way:
            yield number, int(exams.piece_item[wanted]), way


def _candidates(pair: Ints, block: Ints, blocks_of: Ints) -> Iterator[Ints]:
    """Yield the hits of each pair (text, piece) that shares enough different blocks."""
    order = np.lexsort((block, pair))
    pair, block = pair[order], block[order]
    begins = np.flatnonzero(np.diff(pair, prepend=-1))
    fresh = np.ones(pair.size, dtype=np.int64)
    fresh[1:] = (pair[1:] != pair[:-1]) | (block[1:] != block[:-1])
    ends = np.append(begins[1:], pair.size)
    different = np.add.reduceat(fresh, begins) if pair.size else fresh
    enough = different >= np.minimum(BLOCKS_NEEDED, blocks_of[order][begins])
    for first, last in zip(begins[enough].tolist(), ends[enough].tolist(), strict=True):
        yield order[first:last]


def judge(text: UInts, exams: Exams, piece: int, diagonals: Ints, plan: Lengths, overlap: float) -> str | None:
    """Say in which way a text holds an item, given one piece of it and where blocks of the two are equal.

    A diagonal is a place in the text less the place in the piece.
    """
    wanted, other = exams.piece(piece), int(exams.partner[piece])
    if other >= 0 or wanted.size < plan.run:
        return VERBATIM if _whole(text, wanted, exams.piece(other) if other >= 0 else None, plan) else None
    shifts, hits = np.unique(diagonals, return_counts=True)
    matches = [_equal(text, wanted, shift) for shift in shifts.tolist()]
    for equal, count in zip(matches, hits.tolist(), strict=True):
        if count >= BLOCKS_NEEDED and (_runs(equal) >= plan.run).any():
            return VERBATIM
    stretch = max(plan.block, wanted.size // SHIFT)
    for first, shift in enumerate(shifts.tolist()):
        near = int(np.searchsorted(shifts, shift + stretch, "right"))
        covered = np.logical_or.reduce([match & (_runs(match) >= plan.stride) for match in matches[first:near]])
        if covered.mean() >= overlap:
            return OVERLAP
    return None


def _equal(text: UInts, wanted: UInts, shift: int) -> Mask:
    """Say which units of a piece stand in a text if it is laid there at `shift`."""
    out = np.zeros(wanted.size, dtype=np.bool_)
    first, last = max(0, -shift), min(wanted.size, text.size - shift)
    out[first:last] = text[first + shift : last + shift] == wanted[first:last]
    return out


def _runs(equal: Mask) -> Ints:
    """Return for each place how long the run of equal values around it is."""
    begins = np.flatnonzero(np.diff(equal, prepend=~equal[:1]))
    sizes = np.diff(begins, append=equal.size)
    return np.where(equal, np.repeat(sizes, sizes), 0)


def _whole(text: UInts, wanted: UInts, other: UInts | None, plan: Lengths) -> bool:
    """Say whether a piece stands whole in a text and, if there is one, the other close to it."""
    for at in _places(text, wanted):
        reach = NEAR_BY * plan.run
        around = text[max(0, at - reach) : at + wanted.size + reach]
        if other is None or next(_places(around, other), None) is not None:
            return True
    return False


def _places(text: UInts, wanted: UInts) -> Iterator[int]:
    """Yield where a run of units stands in a text."""
    whole, part, at = text.tobytes(), wanted.tobytes(), -1
    while (at := whole.find(part, at + 1)) >= 0:
        if at % text.itemsize == 0:
            yield at // text.itemsize
