"""The words around a written answer: what introduces it, what joins letters, where the next question begins."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.marks import plain, unspaced

ENGLISH = "en"
_STOPS = " \t.。।!！,;:"
_NAMES = re.compile(r"\S+ +")
_THOUGHTS = "</think>"
_BEHIND = r"[\s:=>»\"'“”«–—-]*"
# Scripts whose particles are written onto the next word: no word boundary can be asked before a phrase.
_PREFIXED = re.compile("[\u0590-\u06ff]")


class Phrases:
    """The phrases of one language and of English."""

    def __init__(self, language: str) -> None:
        both = [literals(language), literals(ENGLISH)]
        said = {plain(one) for words in both for one in (*words.introduced_by, words.answer, _head(words.states))}
        self._introduction = _any(said, _BEHIND)
        self._option_word = _any({plain(one) for words in both for one in words.option}, _BEHIND)
        self._and = _between(word for words in both for word in words.and_)
        self._or = _between(word for words in both for word in words.or_)
        self._tails = {plain(words.states).split("{answer}")[1].strip(_STOPS) for words in both}
        asked = "|".join(re.escape(plain(words.question)) for words in both)
        self._next_question = re.compile(rf"\n\s*(?:{asked})\s*:", re.IGNORECASE)

    def own_part(self, text: str) -> str:
        """Return an answer without the thoughts before it and the questions a model makes up behind it."""
        return self._next_question.split(text.split(_THOUGHTS)[-1].strip())[0]

    def regions(self, text: str, most: int) -> Iterator[tuple[str, bool]]:
        """Yield up to `most` characters behind each introduction, to the end of a line, and if a sentence begins there.

        One word and a space name an option as well (`discard answer B`): they introduce at the beginning of a line.
        """
        for match in self._introduction.finditer(text):
            region = text[match.end() : match.end() + most].split("\n", 1)[0]
            if _NAMES.fullmatch(match.group()) and not unspaced(match.group().rstrip()[-1]):
                if text[: match.start()].rpartition("\n")[2].strip() == "":
                    yield region, True
            else:
                yield region, ":" in match.group() or "\n" in match.group()

    def without_option_word(self, text: str) -> str:
        """Return a text without `option` at its beginning."""
        match = self._option_word.match(text)
        return text[match.end() :] if match else text

    def ends_here(self, text: str) -> bool:
        """Say whether nothing but stops or the end of a stating sentence stands in a text: `B.`, `Bです。`."""
        return text.strip(_STOPS) in {"", *self._tails}

    def and_at(self, text: str, place: int) -> int | None:
        """Return where the next letter may begin if `and` stands at a place."""
        return _end(self._and, text, place)

    def or_at(self, text: str, place: int) -> int | None:
        """Return where the next letter may begin if `or` stands at a place."""
        return _end(self._or, text, place)


@lru_cache(maxsize=256)
def phrases_of(language: str) -> Phrases:
    """Return the phrases of a language."""
    return Phrases(language)


def _head(sentence: str) -> str:
    """Return what stands before the answer in a sentence that states it."""
    return sentence.split("{answer}")[0].strip()


def _any(phrases: Iterable[str], behind: str) -> re.Pattern[str]:
    """Return what finds any of some phrases, longer ones first."""
    ordered = sorted({p.strip(" :") for p in phrases if p.strip(" :")}, key=lambda p: (-len(p), p))
    return re.compile("|".join(_bounded(p) + behind for p in ordered), re.IGNORECASE)


def _bounded(phrase: str) -> str:
    """Return a phrase as a pattern that begins and ends where words do, as far as its script shows it."""
    before = "" if unspaced(phrase[0]) or _PREFIXED.match(phrase) else r"(?<!\w)"
    return before + re.escape(phrase) + ("" if unspaced(phrase[-1]) else r"(?![\w\u0900-\u0903\u093a-\u094f])")


def _between(words: Iterable[str]) -> re.Pattern[str]:
    """Return what finds a word between two letters; a comma may stand before it."""
    ordered = sorted({plain(word) for word in words}, key=lambda word: (-len(word), word))
    glued = [unspaced(word[0]) or _PREFIXED.match(word) for word in ordered]
    joined = "|".join(re.escape(w) + (r"\s*-?" if one else r"\s+") for w, one in zip(ordered, glued, strict=True))
    return re.compile(rf"[.,،]?\s*(?:{joined})\s*", re.IGNORECASE)


def _end(pattern: re.Pattern[str], text: str, place: int) -> int | None:
    match = pattern.match(text, place)
    return match.end() if match else None
