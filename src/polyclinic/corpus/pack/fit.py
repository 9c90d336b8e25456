"""Which piece of which document stands in which pack: best fit, or end to end in the order given.

Best fit (arXiv 2404.10830): a document longer than a pack first gives full packs; what is left of
it, like every shorter document, stays whole and goes, longest first, where it leaves the least
room. A stream is packed in windows of a bounded number of tokens, so memory does not grow with it
and its order holds from window to window.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
How = Literal["best_fit", "in_order"]
WINDOW = 1 << 20  # tokens that are packed together
BLOCK = 1 << 13  # documents whose lengths are looked up together


class Pieces(NamedTuple):
    """Pieces in the order in which they lie, pack after pack; `pack` counts from 0 without a gap."""

    document: Numbers
    start: Numbers  # within the document
    length: Numbers
    pack: Numbers

    def of(self, chosen: NDArray[np.bool_] | Numbers) -> "Pieces":
        """Return some of the pieces, in the order asked for."""
        return Pieces(*(column[chosen] for column in self))


Planner = Callable[[Numbers, NDArray[np.int32], int, int], Iterator[Pieces]]


def planner(how: How) -> Planner:
    """Return what plans packs: (stream of document numbers, lengths of documents, tokens per pack, window)."""
    return {"best_fit": best_fit, "in_order": in_order}[how]


def best_fit(stream: Numbers, lengths: NDArray[np.int32], room: int, window: int = WINDOW) -> Iterator[Pieces]:
    """Yield whole packs of each window; a piece is cut only where a document is longer than a pack.

    Packs follow each other as the pieces that opened them do in the stream.
    """
    for documents in _windows(stream, lengths, window):
        sizes = lengths[documents].astype(np.int64)
        pieces = -(-sizes // room)
        at = np.repeat(np.arange(len(documents)), pieces)
        start = (np.arange(len(at)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * room
        length = np.minimum(sizes[at] - start, room)
        order = np.argsort(-length, kind="stable")
        pack = _place(length[order], room)
        opened = order[np.unique(pack, return_index=True)[1]]  # the piece that opened each pack
        rank = np.empty(len(opened), dtype=np.int64)
        rank[np.argsort(opened, kind="stable")] = np.arange(len(opened))
        laid = np.argsort(rank[pack], kind="stable")
        chosen = order[laid]
        yield Pieces(documents[at[chosen]], start[chosen], length[chosen], rank[pack][laid])


def _place(lengths: Numbers, room: int) -> Numbers:
    """Return the pack of each of some lengths, longest first, each where it leaves the least room.

    Packs wait by the room they have left; the set bits of `free` are the rooms some pack has.
    """
    waiting: list[list[int]] = [[] for _ in range(room + 1)]
    free = packs = 0
    out = []
    for length in lengths.tolist():
        fits = free >> length
        if fits:
            left = length + (fits & -fits).bit_length() - 1
            pack = waiting[left].pop()
            if not waiting[left]:
                free ^= 1 << left
        else:
            left, pack = room, packs
            packs += 1
        left -= length
        if left:
            if not waiting[left]:
                free ^= 1 << left
            waiting[left].append(pack)
        out.append(pack)
    return np.array(out, dtype=np.int64)


def in_order(stream: Numbers, lengths: NDArray[np.int32], room: int, window: int = WINDOW) -> Iterator[Pieces]:
    """Yield packs filled end to end; a document that does not fit goes on in the next pack."""
    held = Pieces(*(np.zeros(0, dtype=np.int64) for _ in range(4)))  # of the pack that is still open
    for documents in _windows(stream, lengths, window):
        sizes = lengths[documents].astype(np.int64)
        begin = int(held.length.sum()) + np.cumsum(sizes) - sizes
        first = begin // room
        pieces = np.where(sizes > 0, (begin + sizes - 1) // room - first + 1, 0)
        at = np.repeat(np.arange(len(documents)), pieces)
        pack = first[at] + np.arange(len(at)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        start = np.maximum(pack * room - begin[at], 0)
        length = np.minimum((pack + 1) * room - begin[at], sizes[at]) - start
        found = Pieces(documents[at], start, length, pack)
        joined = Pieces(*(np.concatenate(pair) for pair in zip(held, found, strict=True)))
        full = joined.pack < int(joined.length.sum()) // room
        if full.any():
            yield joined.of(full)
        held = joined.of(~full)._replace(pack=np.zeros(int((~full).sum()), dtype=np.int64))
    if len(held.pack):
        yield held


def _windows(stream: Numbers, lengths: NDArray[np.int32], window: int) -> Iterator[Numbers]:
    """Cut a stream where the next document would make more than `window` tokens; no window is empty."""
    first = before = total = 0  # where a window begins; tokens up to there, and up to a block
    for at in range(0, len(stream), BLOCK):
        ends = total + np.cumsum(lengths[stream[at : at + BLOCK]], dtype=np.int64)
        while (last := at + int(np.searchsorted(ends, before + window, side="right"))) < at + len(ends):
            last = max(last, first + 1)
            yield stream[first:last]
            first, before = last, int(ends[last - 1 - at]) if last > at else total
        total = int(ends[-1])
    if first < len(stream):
        yield stream[first:]
