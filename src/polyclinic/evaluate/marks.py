"""The letters and numbers that options go by, found in text: which mark stands at a place, and where it ends."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from polyclinic.evaluate.literals import ASCII_LETTERS, Literals, literals

# Letters typed for one another: alef with and without its hamza, forms of yeh and heh.
_SAME = ("اأإآٱ", "يیى", "هةھە")
# Cyrillic letters that look like a Latin one, by what a reader of the prompt would take it for.
_TWINS = dict(zip("АВЕКМНОРСТХЅЈІ", "ABEKMHOPCTXSJI", strict=True))
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO")
_MARKUP = re.compile(r"\\(?:boxed|text(?:bf)?|mathrm)|[*_`#$~\u0640]")
OPENERS, CLOSERS = "([{<«\"'“„‘「【《", ")]}>»\"'”“’」】》"


class Mark(NamedTuple):
    """One mark in a text: the option it names, where it ends, how it is written."""

    option: int
    end: int
    text: str
    closed: bool  # a bracket or quote stood behind it

    @property
    def digit(self) -> bool:
        """Say whether it is a number."""
        return self.text.isdigit()

    @property
    def small(self) -> bool:
        """Say whether it is a small letter, as words are made of."""
        return self.text.islower()

    @property
    def cased(self) -> bool:
        """Say whether it is a letter of a script that has capitals."""
        return self.text.isupper() or self.small


def plain(text: str) -> str:
    """Return a text in compatibility composition without markup, direction marks, joiners and tatweel."""
    composed = unicodedata.normalize("NFKC", text)
    kept = "".join(char for char in composed if unicodedata.category(char) not in ("Cf", "Cs"))
    return _MARKUP.sub("", kept)


class Marks:
    """The marks of a question with some number of options in one language."""

    def __init__(self, words: Literals, options: int) -> None:
        self.options = options
        self.letters: dict[str, int] = {}
        native = [plain(letter) for letter in words.letters[:options]]
        for place, letter in enumerate(ASCII_LETTERS[:options]):
            if not self._means_another(letter, place, native):
                self.letters[letter] = place
        for place, letter in enumerate(native):
            for form in next((group for group in _SAME if letter in group), letter):
                self.letters[form] = place
        self.letters |= {letter.lower(): place for letter, place in self.letters.items()}

    @staticmethod
    def _means_another(letter: str, place: int, native: Sequence[str]) -> bool:
        """Say whether a Latin letter looks like a listed one of another option: B is the third of А Б В."""
        return any(_TWINS.get(other) == letter and at != place for at, other in enumerate(native))

    def at(self, text: str, start: int) -> Mark | None:
        """Return the mark at a place, with brackets or quotes around it, if one stands there for itself."""
        begin = start
        while begin < len(text) and text[begin] in OPENERS:
            begin += 1
        digits = re.compile(r"\d+").match(text, begin)
        found = digits.group() if digits else text[begin : begin + 1]
        place = int(found) - 1 if digits and len(found) < len("1000") else self.letters.get(found, -1)
        end = begin + len(found)
        if not found or not 0 <= place < self.options or not _ends(text, end, found):
            return None
        stop = end
        while stop < len(text) and text[stop] in CLOSERS:
            stop += 1
        return Mark(place, stop, found, stop > end)


@lru_cache(maxsize=1024)
def marks_of(language: str, options: int) -> Marks:
    """Return the marks of a language for a number of options."""
    return Marks(literals(language), options)


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    return unicodedata.name(char, "?").split()[0].split("-")[0]


def unspaced(char: str) -> bool:
    """Say whether a character belongs to a script that glues words and endings together."""
    return _script(char) in _UNSPACED


def _ends(text: str, end: int, mark: str) -> bool:
    """Say whether a mark is over where it is: B12, B-cell, B+, 1.5 and 2 % go on."""
    after, then = text[end : end + 1], text[end + 1 : end + 2]
    if not after:
        return True
    if unicodedata.category(after)[0] == "M" or after in "+%°":
        return False
    if after.isalnum():
        glued = unspaced(after) and not unspaced(mark[-1])
        return glued and not after.isdigit()
    if after in "-–/.:" and mark.isdigit() and then.isdigit():
        return False
    return not (after in "'’-–" and then.isalnum())
