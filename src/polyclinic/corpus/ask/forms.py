"""Whether a text holds a form of a term: as written, inflected, with an article before it, in words apart."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache

from polyclinic.corpus.ask.folding import closed, fold, holds, table, unspaced

ACRONYM = re.compile(r"[A-Z]{2,4}")  # may be a word, too (WHO, AIDS)
STEM = 0.7  # share of a word's letters that an inflected form keeps
MIN_STEM = 4
MIN_BARE = 3  # letters of a word without what is written together with it
MIN_WORD = 4  # letters of a word of a term that is looked for by itself
PIECES = (2, 3, 4)  # characters of a form in scripts without spaces
BEGINNINGS = (0.55, 0.7, 1.0)  # shares of a word in the others
MIN_PIECE = 2
_ASIDE = re.compile(r"\s*[(（\[]([^)）\]]*)[)）\]]\s*")


def present(forms: Sequence[str], text: str) -> bool:
    """Say whether a text holds one of the forms as it is written."""
    folded = fold(text)
    return any(holds(folded, fold(form)) for form in forms)


def has_term(forms: Sequence[str], text: str, language: str = "") -> bool:
    """Say whether a text holds one of the forms as written or inflected."""
    return present(forms, text) or present_inflected(forms, text, language)


def present_inflected(forms: Sequence[str], text: str, language: str = "") -> bool:
    """Say whether a text holds one of the forms, its words inflected or apart from each other."""
    folded = closed(fold(text))
    return any(all(word in folded for word in stems) for form in forms for stems in _stems(form, language))


@lru_cache(maxsize=65536)
def _stems(form: str, language: str) -> tuple[tuple[str, ...], ...]:
    """Return the stems of the words of a form, and of it without what it has in brackets."""
    asides = [aside for aside in _ASIDE.findall(form) if ACRONYM.fullmatch(aside)]
    ways = {way: None for way in (form, _ASIDE.sub(" ", form), *asides)}
    cut = (tuple(stem(bare(word, language)) for word in closed(fold(way)).split()) for way in ways)
    return tuple(stems for stems in cut if stems)


def stem(word: str) -> str:
    """Return the beginning of a word that its inflected forms share."""
    return word[: max(MIN_STEM, round(len(word) * STEM))]


def bare(word: str, language: str) -> str:
    """Return a folded word without the article or particle that its language writes together with it."""
    for affix in _affixes(language):
        if word.startswith(affix) and len(word) >= len(affix) + MIN_BARE:
            return word[len(affix) :]
    return word


@cache
def _affixes(language: str) -> tuple[str, ...]:
    begins = map(fold, table("affixes").get(language, {}).get("begins", ()))
    return tuple(sorted(begins, key=len, reverse=True))


@lru_cache(maxsize=65536)
def openings(text: str, language: str) -> str:
    """Return what forms are looked for in: the folded words, each with a space before it, and without affixes."""
    folded = fold(text)
    if unspaced(folded):
        return closed(folded)
    words = folded.split()
    return "".join(f" {word}" for word in [*words, *(bare(word, language) for word in words)])


def rendered(text: str, beginnings: Sequence[str], language: str) -> bool:
    """Say whether a word of a text begins so; in scripts without spaces, anywhere."""
    if not beginnings:
        return False
    found = openings(text, language)
    return any((beginning if unspaced(beginning) else f" {beginning}") in found for beginning in beginnings)


def word_parts(term: str) -> list[str]:
    """Return the words of a term that are looked for when the term is not found; none if it has only one."""
    found = [word for word in term.split() if len(word) >= MIN_WORD and not word.isdigit()]
    return found if " " in term else []


def pieces(text: str, language: str) -> frozenset[str]:
    """Return what may stand for a term in a text: beginnings of its words, runs of characters without spaces."""
    found = openings(text, language)
    if " " not in found:
        return frozenset(found[i : i + n] for n in PIECES for i in range(len(found) - n + 1))
    plain = {word for word in found.split() if not word.isdigit()}
    return frozenset(word[: max(MIN_PIECE, round(len(word) * share))] for word in plain for share in BEGINNINGS)
