"""Does an answer rest on its passage? The words and numbers it shares with it, without a model."""

import re
from collections.abc import Sequence

from polyclinic.corpus.ask.folding import closed, fold, numbers, unspaced
from polyclinic.corpus.ask.forms import stem

SHORT = 4  # letters of a word that means little by itself
PAIR = 2  # characters of a piece in scripts without spaces
_LISTING = re.compile(r"^\s*[\(]?\d{1,2}[.)、]\s", re.MULTILINE)
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？।॥؟۔])|\n+")


def support(answer: str, passage: str) -> float:
    """Return the share of an answer's words of some length, or pairs of characters, that its passage has."""
    wanted, there = _pieces(answer), set(_pieces(passage))
    return sum(piece in there for piece in wanted) / len(wanted) if wanted else 0.0


def _pieces(text: str) -> list[str]:
    folded = fold(text)
    joined = closed(folded)
    if unspaced(folded):
        return [joined[i : i + PAIR] for i in range(len(joined) - PAIR + 1)]
    words = [word for word in folded.split() if not word.isdigit()]
    return [stem(word) for word in words if len(word) >= SHORT] or words


def unsupported_numbers(answer: str, passage: str) -> list[str]:
    """Return the numbers of an answer that its passage lacks; those that only count a list do not matter."""
    there = {number.digits for number in numbers(passage)}
    return [n.digits for n in numbers(_LISTING.sub("", answer)) if not n.named and n.digits not in there]


def mentions(text: str, phrases: Sequence[str]) -> bool:
    """Say whether a text holds one of some phrases, as whole words where there are spaces."""
    words = f" {fold(text)} "
    for phrase in map(fold, phrases):
        if f" {phrase} " in words if not unspaced(words) else closed(phrase) in closed(words):
            return True
    return False


def cut(text: str, limit: int) -> str:
    """Return the beginning of a text up to the last sentence or paragraph end within a limit of characters."""
    if len(text) <= limit:
        return text
    ends = [m.start() for m in _ENDS.finditer(text[: limit + 1]) if 0 < m.start() <= limit]
    return text[: ends[-1] if ends else limit].rstrip()
