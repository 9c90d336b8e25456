"""Options that an answer spells out: by their text, or by yes, no and maybe."""

import unicodedata
from collections import Counter
from functools import lru_cache

from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.marks import plain

_EDGES = " \t.。!！?,;:،؛۔।\"'“”«»()[]"


class OptionTexts:
    """The texts of one question's options."""

    def __init__(self, language: str, options: tuple[str, ...]) -> None:
        folded = [fold(option) for option in options]
        counts = Counter(folded)
        self._places = {text: place for place, text in enumerate(folded) if text and counts[text] == 1}
        self.longest = max(map(len, options), default=0)
        self._words = _yes_and_no(language, folded)

    def whole(self, text: str) -> int | None:
        """Return the option that a text is, if it is one and no other reads the same."""
        return self._places.get(fold(text))

    def begins(self, text: str) -> int | None:
        """Return the option whose text a text begins with, the longest of them."""
        folded = fold(text)
        found = [text for text in self._places if _begins(folded, text)]
        return self._places[max(found, key=len)] if found else None

    def yes_or_no(self, text: str) -> int | None:
        """Return the option that a text begins to affirm, deny or leave open; None unless the options are these."""
        folded = fold(text)
        found = [word for word in self._words if _begins(folded, word)]
        return self._words[max(found, key=len)] if found else None


@lru_cache(maxsize=4096)
def option_texts(language: str, options: tuple[str, ...]) -> OptionTexts:
    """Return the texts of some options."""
    return OptionTexts(language, options)


def fold(text: str) -> str:
    """Return a text as it is compared: plain, in one case, spaces made one, without marks at its ends."""
    return " ".join(plain(text).casefold().split()).strip(_EDGES)


def _begins(text: str, start: str) -> bool:
    """Say whether a text begins with another and then a word is over."""
    after = text[len(start) : len(start) + 1]
    return text.startswith(start) and not after.isalnum() and unicodedata.category(after or " ")[0] != "M"


def _yes_and_no(language: str, options: list[str]) -> dict[str, int]:
    """Return which option each word for yes, no and maybe means; nothing unless every option is one of them."""
    meanings: dict[str, int] = {}
    for words in (literals("en"), literals(language)):
        for kind, said in enumerate((words.yes, words.no, words.maybe)):
            meanings |= {fold(word): kind for word in said}
    kinds = [meanings.get(option) for option in options]
    if None in kinds or len(set(kinds)) < len(kinds):
        return {}
    return {word: kinds.index(kind) for word, kind in meanings.items() if kind in kinds}
