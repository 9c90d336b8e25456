"""Which characters of a text stand in medical terms of its language.

A term stands for itself as a whole word, `fever*` for every word that begins so, `*fever*` for any
place. In scripts without spaces every term is looked for in any place. Small and capital letters
are one.
"""

import csv
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from polyclinic.corpus.normalise import clean
from polyclinic.corpus.quality.characters import Characters, Hashes, Places, Sums, codes_of, folds
from polyclinic.corpus.quality.measure import Values, units_of
from polyclinic.errors import DataError
from polyclinic.languages import language

_FILTER = 1 << 16
_HEAD = 3  # characters of a term by which most places are passed over
_STEPS = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))


class Kind(NamedTuple):
    """Terms that are looked for alike: from the start of a word on or anywhere, up to its end or not."""

    starts_word: bool
    ends_word: bool


class Terms:
    """The terms of one language, ready to be found in many texts at once."""

    def __init__(self, terms: Iterable[str], spaced: bool) -> None:
        found: dict[tuple[bool, int], dict[tuple[bool, int], set[int]]] = {}
        heads: dict[tuple[bool, int], set[int]] = {}
        for term in sorted(set(terms)):
            kind = Kind(spaced and not term.startswith("*"), spaced and not term.endswith("*"))
            numbers = folds()[codes_of(clean(term.strip("*")))]
            size = len(numbers)
            value = int(Sums(numbers).stretches(np.zeros(1, np.int64), np.array([size]))[0])
            place = (kind.starts_word, min(size, _HEAD))
            found.setdefault(place, {}).setdefault((kind.ends_word, size), set()).add(value)
            heads.setdefault(place, set()).add(int(_heads(numbers, np.zeros(1, np.int64), place[1])[0]))
        self._hashes = {
            place: {key: np.array(sorted(values), dtype=np.uint64) for key, values in group.items()}
            for place, group in found.items()
        }
        self._wanted = {place: _table(values) for place, values in heads.items()}

    def covered(self, characters: Characters) -> Values:
        """Return how many characters of words each document has in terms; none is counted twice."""
        starts, ends = [], []
        for (starts_word, head), wanted in self._wanted.items():
            places = characters.words[0] if starts_word else np.flatnonzero(characters.word)
            places = places[wanted[_heads(characters.folded, places, head)]]
            for (ends_word, size), hashes in self._hashes[starts_word, head].items():
                hits = _hits(characters, places, size, hashes, ends_word)
                starts.append(hits)
                ends.append(hits + size)
        if not sum(map(len, starts)):
            return np.zeros(characters.count)
        size = len(characters.codes) + 1
        steps = np.bincount(np.concatenate(starts), minlength=size) - np.bincount(np.concatenate(ends), minlength=size)
        inside = (np.cumsum(steps[:-1]) > 0) & characters.word
        return np.bincount(characters.document[inside], minlength=characters.count).astype(np.float64)


def _hits(characters: Characters, places: Places, size: int, hashes: Hashes, ends_word: bool) -> Places:
    """Return the places at which a term of one size begins."""
    last = len(characters.codes) - 1  # a break, which is in no word
    starts = places[places + size <= last]
    hit = _among(characters.sums.stretches(starts, starts + size), hashes)
    hit &= characters.document[starts] == characters.document[starts + size - 1]
    if ends_word:
        hit &= ~characters.word[starts + size]
    found: Places = starts[hit]
    return found


def _heads(folded: npt.NDArray[np.uint32], places: Places, size: int) -> npt.NDArray[np.uint32]:
    """Return a small number of the first characters at each place."""
    mixed = folded[places] * _STEPS[0]
    for step in range(1, size):
        mixed ^= folded[np.minimum(places + step, len(folded) - 1)] * _STEPS[step]
    found: npt.NDArray[np.uint32] = mixed >> np.uint32(16)
    return found


def _table(values: Iterable[int]) -> npt.NDArray[np.bool_]:
    table = np.zeros(_FILTER, dtype=np.bool_)
    table[list(values)] = True
    return table


def _among(hashes: Hashes, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Say which hashes are among the wanted ones, which are sorted."""
    place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
    found: npt.NDArray[np.bool_] = wanted[place] == hashes
    return found


@cache
def load(path: Path | None) -> Mapping[str, Terms]:
    """Return the terms of every language of a CSV file with columns language and term; ours without a path.

    Raises DataError naming the line of what is no term, UnknownLanguageError for a code.
    """
    file = path or resources.files("polyclinic.data").joinpath("medical_terms.csv")
    where = path.name if path else "data/medical_terms.csv"
    try:
        reader = csv.DictReader(file.read_text("utf-8").splitlines(), restval="")
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(where, f"cannot be read ({type(err).__name__})", "give a CSV file in UTF-8") from err
    if not {"language", "term"} <= set(reader.fieldnames or ()):
        raise DataError(where, "has no columns language and term", "put `language,term` into its first line")
    found: dict[str, set[str]] = {}
    for row in reader:
        place = f"{where}:{reader.line_num}"
        if not clean(row["term"].strip("*")):
            raise DataError(place, "holds no term", "remove the line or fill it in")
        found.setdefault(language(row["language"], where=place).code, set()).add(row["term"].strip())
    return {code: Terms(terms, units_of(code).spaced) for code, terms in found.items()}
