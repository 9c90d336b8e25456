"""Texts as flat arrays of units to be compared: letters or tokens, and hashes of windows over them.

Compared is what is left after NFKC, case folding and taking punctuation for space. A token is a word
or, in scripts written without spaces, one character. A whole batch is one array, so that the work is
numpy's; hashes are polynomials modulo 2^64, computed for every window from two running sums.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

GAP, WORD, ALONE = 0, 1, 2
SPACE = 0x20
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
INVERSE = pow(BASE, -1, 2**64)

# Blocks of scripts that put no space between words (https://unicode.org/Public/UNIDATA/Blocks.txt):
# Thai and Lao, Myanmar, Khmer, kana, Han and its extensions, Javanese, Myanmar extensions.
UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x9FFF),
    (0xA980, 0xA9DF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class Units(NamedTuple):
    """The units of several texts end to end, each a scattered number: equal numbers are equal letters.

    Text `i` is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: UInts
    offsets: Ints

    def of(self, number: int) -> UInts:
        """Return the units of one text."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def sizes(self) -> Ints:
        """Return the number of units of each text."""
        return np.diff(self.offsets)


class Windows(NamedTuple):
    """Hashes of all windows inside texts, where each begins among the units, and each text's part."""

    hashes: UInts
    starts: Ints
    offsets: Ints


def plain(text: str) -> str:
    """Return a text without differences of case and width; spaces and punctuation stay."""
    return unicodedata.normalize("NFKC", text).casefold()


def letters(plains: Sequence[str]) -> Units:
    """Return the letters, marks and digits of plain texts; between words of spaced scripts, one space."""
    codes, kinds, offsets = _codes(plains)
    at = np.flatnonzero(kinds)
    own = kinds[at] == WORD
    spaced = np.zeros(at.size, dtype=np.int64)
    spaced[1:] = (np.diff(at) > 1) & own[1:] & own[:-1]
    bounds = np.searchsorted(at, offsets)
    firsts = bounds[:-1]
    spaced[firsts[firsts < at.size]] = 0
    place = np.arange(at.size) + np.cumsum(spaced)
    values = np.full(at.size + int(spaced.sum()), _scattered()[SPACE], dtype=np.uint64)
    values[place] = _scattered()[codes[at]]
    return Units(values, np.append(place, values.size)[bounds])


def tokens(plains: Sequence[str]) -> Units:
    """Return the hashes of the tokens of plain texts."""
    codes, kinds, offsets = _codes(plains)
    at = np.flatnonzero(kinds)
    alone = kinds[at] == ALONE
    begins = np.ones(at.size, dtype=np.bool_)
    begins[1:] = (np.diff(at) > 1) | alone[1:] | alone[:-1]
    bounds = np.searchsorted(at, offsets)
    begins[bounds[:-1][bounds[:-1] < at.size]] = True
    first = np.flatnonzero(begins)
    hashes = _spans(_scattered()[codes[at]], first, np.append(first[1:], at.size))
    return Units(hashes, np.searchsorted(first, bounds))


def windows(units: Units, length: int) -> Windows:
    """Return the hash of every run of `length` units that lies inside one text."""
    counts = np.maximum(units.sizes() - length + 1, 0)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    starts = np.arange(offsets[-1]) + np.repeat(units.offsets[:-1] - offsets[:-1], counts)
    return Windows(running(units.values, length)[starts], starts, offsets)


def running(values: UInts, length: int) -> UInts:
    """Return the hash of every run of `length` values, whatever texts they are of."""
    count = max(0, values.size - length + 1)
    sums, down = _sums(values)
    hashes = sums[length:][:count] - sums[:count]
    hashes *= down[:count]
    return hashes


def _spans(values: UInts, first: Ints, last: Ints) -> UInts:
    """Return a hash of each span of values, the same wherever the span stands."""
    sums, down = _sums(values)
    return _mix((sums[last] - sums[first]) * down[first])


def _sums(values: UInts) -> tuple[UInts, UInts]:
    """Return the sums of values times powers of the base, and the powers that take their place out of them."""
    up, down = _powers(1 << max(10, int(values.size).bit_length()))
    sums = np.zeros(values.size + 1, dtype=np.uint64)
    np.cumsum(values * up[: values.size], out=sums[1:])
    return sums, down


def _mix(values: UInts) -> UInts:
    """Scatter 64-bit values (finaliser of SplitMix64, https://doi.org/10.1145/2714064.2660195)."""
    out = values + np.uint64(BASE)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return out ^ (out >> np.uint64(31))


@cache
def _scattered() -> UInts:
    """Return a number for every code point; no two are equal, since the scattering can be undone."""
    return _mix(np.arange(0x110000, dtype=np.uint64))


@cache
def _powers(size: int) -> tuple[UInts, UInts]:
    """Return the first powers of the base and of its inverse."""
    ups, downs = (np.full(size, base, dtype=np.uint64) for base in (BASE, INVERSE))
    ups[0] = downs[0] = 1
    return np.cumprod(ups, dtype=np.uint64), np.cumprod(downs, dtype=np.uint64)


def _codes(plains: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8], Ints]:
    """Return the code points of all texts, the kind of each, and where each text begins."""
    codes = np.frombuffer("".join(plains).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = np.fromiter((len(text) for text in plains), dtype=np.int64, count=len(plains))
    return codes, _kinds()[codes], np.concatenate(([0], np.cumsum(sizes)))


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Return for every code point whether it parts words, belongs to one, or is a token by itself."""
    categories = "".join(map(unicodedata.category, map(chr, range(0x110000)))).encode()  # two letters each
    initials = np.frombuffer(categories, dtype=np.uint8)[::2]
    kinds = np.where(np.isin(initials, np.frombuffer(b"LMN", dtype=np.uint8)), np.uint8(WORD), np.uint8(GAP))
    for first, last in UNSPACED:
        kinds[first : last + 1][kinds[first : last + 1] == WORD] = ALONE
    return kinds
