"""Texts of one language as arrays of characters, with a hash of any stretch in constant time.

A hash is a polynomial over the characters modulo 2^64: the difference of two running sums, moved
to the same power by the inverse, which every odd number has. It is the same in every process, and
equal stretches have equal hashes; unequal ones hardly ever have.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPACE, LETTER, MARK, DIGIT, PUNCTUATION, SYMBOL = range(6)
CLASSES = 6
WINDOW = 100_000  # characters of a document that are looked at
DOCUMENTS = 1 << 12  # texts at once; the number of one is part of a key
_PLANES = 0x20000  # below this each character is asked; above are ideographs up to 0x40000, then nothing
_KINDS = {"L": LETTER, "M": MARK, "N": DIGIT, "P": PUNCTUATION, "Z": SPACE}
_JOINERS = "\u200c\u200d"  # stand inside words
_APOSTROPHES = "\u2018\u2019\u02bc\u02bb\u00b4`"
_BASE = 0x9E3779B97F4A7C15  # odd
_MIX = 0xBF58476D1CE4E5B9

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


class Powers(NamedTuple):
    """Powers of the base and of its inverse, modulo 2^64."""

    up: Hashes
    down: Hashes


@cache
def powers(size: int) -> Powers:
    """Return the first `size` powers."""
    made = []
    for base in (_BASE, pow(_BASE, -1, 2**64)):
        factors = np.full(size, base, dtype=np.uint64)
        factors[0] = 1
        made.append(np.cumprod(factors, dtype=np.uint64))
    return Powers(*made)


@cache
def kinds() -> npt.NDArray[np.uint8]:
    """Return the class of every code point, by Unicode's general category."""
    low = [_KINDS.get(unicodedata.category(chr(code))[0], SYMBOL) for code in range(_PLANES)]
    for char in "\t\n\r":
        low[ord(char)] = SPACE
    for char in _JOINERS:
        low[ord(char)] = MARK
    ideographs = np.full(0x40000 - _PLANES, LETTER)
    return np.concatenate([low, ideographs, np.full(0x110000 - 0x40000, SYMBOL)]).astype(np.uint8)


@cache
def folds() -> npt.NDArray[np.uint32]:
    """Return what every code point counts as in a comparison: small letters, one apostrophe, one space."""
    low = np.arange(0x110000, dtype=np.uint32)
    for code in range(_PLANES):
        small = chr(code).lower()
        if len(small) == 1:
            low[code] = ord(small)
    low[[ord(char) for char in _APOSTROPHES]] = ord("'")
    low[kinds() == SPACE] = ord(" ")
    return low


def codes_of(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class Sums:
    """Running sums of numbers, from which any stretch of them is hashed."""

    def __init__(self, numbers: npt.NDArray[np.unsignedinteger]) -> None:
        self._powers = powers(_room(len(numbers)))
        self._sums = np.zeros(len(numbers) + 1, dtype=np.uint64)
        np.cumsum(numbers * self._powers.up[: len(numbers)], out=self._sums[1:])

    def stretches(self, starts: Places, ends: Places) -> Hashes:
        """Return the hash of each stretch from start to end, the end left out."""
        found: Hashes = (self._sums[ends] - self._sums[starts]) * self._powers.down[starts]
        return found

    def windows(self, size: int) -> Hashes:
        """Return the hash of every stretch of one size, by its start."""
        count = max(len(self._sums) - size, 0)
        found: Hashes = (self._sums[size:] - self._sums[:count]) * self._powers.down[:count]
        return found


def _room(size: int) -> int:
    """Return the next power of two above a size, so that few tables of powers are kept."""
    return 1 << max(size, 1).bit_length()


class Characters:
    """Texts of one language, laid end to end; every array is by character unless it says otherwise."""

    def __init__(self, texts: Sequence[str]) -> None:
        cut = [text[:WINDOW] for text in texts]
        self.count = len(cut)
        self.codes = codes_of("\n".join([*cut, ""]))
        sizes = np.fromiter(map(len, cut), np.int64, self.count) + 1
        self.document = np.repeat(np.arange(self.count, dtype=np.int32), sizes)
        self.kind = kinds()[self.codes]
        self.folded = folds()[self.codes]
        self.word = (self.kind >= LETTER) & (self.kind <= DIGIT)  # letters, marks, digits
        self.breaks = np.flatnonzero(self.codes == ord("\n"))
        self.sums = Sums(self.folded)

    def classes(self) -> npt.NDArray[np.int64]:
        """Return how many characters of each class a document has, (documents, classes)."""
        found = np.bincount(self.document * CLASSES + self.kind, minlength=self.count * CLASSES)
        return found.reshape(self.count, CLASSES)

    @cached_property
    def words(self) -> tuple[Places, Places]:
        """Return where words start and end: runs of letters, marks and digits."""
        edges = np.flatnonzero(np.diff(self.word, prepend=False))  # the last character is a break
        return edges[::2], edges[1::2]

    def graphemes(self) -> tuple[Places, Places]:
        """Return where letters and digits start and end, each with the marks behind it."""
        base = self.word & (self.kind != MARK)
        starts = np.flatnonzero(base)
        ends = np.append(starts[1:], len(self.codes))
        breaks = np.flatnonzero(~self.word)
        return starts, np.minimum(ends, breaks[np.searchsorted(breaks, starts)])


def keyed(hashes: Hashes, documents: npt.NDArray[np.integer]) -> Hashes:
    """Return hashes that are equal only within a document; documents are numbered below DOCUMENTS."""
    mixed = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(_MIX)
    out: Hashes = (mixed >> np.uint64(12)) | (documents.astype(np.uint64) << np.uint64(52))
    return out


def document_of(keys: Hashes) -> Places:
    """Return the document of each key."""
    return (keys >> np.uint64(52)).astype(np.int64)
