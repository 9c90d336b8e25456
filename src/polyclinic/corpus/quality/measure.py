"""How long, how repetitive and how clean a text is, measured for many texts at once.

The measures and the sizes of the n-grams follow Gopher's filters (arXiv 2112.11446, table A1),
with words counted where a script puts spaces between them and characters where it does not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from polyclinic.corpus.quality.characters import (
    DIGIT,
    DOCUMENTS,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    WINDOW,
    Characters,
    Places,
    Sums,
    document_of,
    keyed,
)
from polyclinic.languages import language

MEASURES = ("length", "lines", "repetition", "top", "symbols", "digits", "punctuation", "terms")
REPEATED_WORDS, TOP_WORDS = 5, 3  # n of the n-grams, in words
CHUNK = 1 << 18  # characters measured at once

Values = npt.NDArray[np.float64]
Cover = Callable[[Characters], Values]


class Units(NamedTuple):
    """What a text is counted in: words, or characters where a script puts no spaces; n-grams in these."""

    spaced: bool
    repeated: int
    top: int

    def of_words(self, words: int) -> float:
        """Return how many units are about so many words."""
        return words if self.spaced else words * self.repeated / REPEATED_WORDS


@cache
def _characters_per_word() -> Mapping[str, float]:
    text = resources.files("polyclinic.data").joinpath("quality.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text)["characters_per_word"])


@cache
def units_of(code: str) -> Units:
    """Return the units of a language, by its script."""
    size = _characters_per_word().get(language(code).script)
    if size is None:
        return Units(True, REPEATED_WORDS, TOP_WORDS)
    return Units(False, round(REPEATED_WORDS * size), round(TOP_WORDS * size))


def measure(texts: Sequence[str], units: Units, covered: Cover) -> dict[str, Values]:
    """Return every measure of every text of one language, by MEASURES; all but `length` are shares of 0 to 1.

    `covered` counts the characters that stand in medical terms. Of a text longer than WINDOW
    characters the first are measured, and its length is reckoned from them.
    """
    parts = [_measure(chunk, units, covered) for chunk in _chunks(texts)]
    return {name: np.concatenate([part[name] for part in parts] or [np.zeros(0)]) for name in MEASURES}


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Part texts into lists of about CHUNK characters, which stay in a processor's cache."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += min(len(text), WINDOW)
        if size >= CHUNK or len(held) == DOCUMENTS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _measure(texts: Sequence[str], units: Units, covered: Cover) -> dict[str, Values]:
    characters = Characters(texts)
    classes = characters.classes()
    visible = classes.sum(axis=1) - classes[:, SPACE]
    words = visible - classes[:, PUNCTUATION] - classes[:, SYMBOL]
    starts, ends = characters.words if units.spaced else characters.graphemes()
    longer = np.array([max(len(text) / WINDOW, 1.0) for text in texts])
    repetition, top = _repetition(characters, starts, ends, units)
    return {
        "length": np.bincount(characters.document[starts], minlength=characters.count) * longer,
        "lines": _lines(characters),
        "repetition": repetition,
        "top": top,
        "symbols": _share(classes[:, SYMBOL], visible),
        "digits": _share(classes[:, DIGIT], visible),
        "punctuation": _share(classes[:, PUNCTUATION], visible),
        "terms": _share(covered(characters), words),
    }


def _share(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Values:
    """Return part / whole, 0 of nothing."""
    found: Values = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return found


def _lines(characters: Characters) -> Values:
    """Return the share of characters that stand in lines which were there before in their document."""
    ends = characters.breaks
    starts = np.append(0, ends[:-1] + 1)
    sizes = ends - starts
    documents = characters.document[ends]
    keys = keyed(characters.sums.stretches(starts, ends), documents)
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), dtype=np.bool_)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    whole = np.bincount(documents, weights=sizes, minlength=characters.count)
    return _share(np.bincount(documents[again], weights=sizes[again], minlength=characters.count), whole)


def _repetition(characters: Characters, starts: Places, ends: Places, units: Units) -> tuple[Values, Values]:
    """Return the share of n-grams that were there before, and of units that the commonest shorter one takes again.

    N-grams do not reach across lines.
    """
    hashes = characters.sums.stretches(starts, ends)
    sums = Sums(hashes)
    line = np.searchsorted(characters.breaks, starts)
    documents = characters.document[starts]
    count = characters.count
    total, distinct, _ = _ngrams(sums, line, documents, units.repeated, count)
    _, _, most = _ngrams(sums, line, documents, units.top, count)
    whole = np.bincount(documents, minlength=count)
    top = np.minimum(_share(np.maximum(most - 1, 0) * units.top, whole), 1.0)
    return _share(total - distinct, total), top


def _ngrams(
    sums: Sums, line: Places, documents: npt.NDArray[np.int32], size: int, count: int
) -> tuple[Places, Places, Places]:
    """Return by document how many n-grams there are, how many different ones, and how often the commonest stands."""
    within = line[size - 1 :] == line[: max(len(line) - size + 1, 0)]
    keys = np.sort(keyed(sums.windows(size), documents[: len(within)])[within])
    if not len(keys):
        return np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    runs, owner = np.diff(np.append(first, len(keys))), document_of(keys[first])
    total = np.bincount(owner, weights=runs, minlength=count).astype(np.int64)
    distinct = np.bincount(owner, minlength=count)
    most = np.zeros(count, np.int64)
    begins = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    most[owner[begins]] = np.maximum.reduceat(runs, begins)
    return total, distinct, most
