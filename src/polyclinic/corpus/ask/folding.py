"""Texts of all scripts made comparable: one form of each letter, no vowel marks, words, numbers.

Folding is NFKC and case folding, without the marks that a script may leave out (Arabic and Hebrew
vowels, nukta, joiners), with the letters that are typed for one another made one.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from polyclinic.strict_yaml import parse

# Written or left out at will: Hebrew points, Arabic vowels and tatweel, nukta, joiners, variation selectors.
_OPTIONAL = [*range(0x591, 0x5C8), *range(0x64B, 0x653), 0x670, 0x640, 0x93C, 0x9BC, *range(0x200B, 0x2010)]
_OPTIONAL += [*range(0xFE00, 0xFE10), 0xAD, 0xFEFF]
# One letter typed for another: Arabic kaf and yeh, alef with its marks, teh marbuta; apostrophes.
_SAME = dict(zip("كيىأإآٱة’‘ʼ`´", "کییااااه'''''", strict=True))
_INSIDE = "'°"  # part of a word where they touch one
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_NUMBER = re.compile(r"\d+(?:[.,'٬٫]\d+)*")
_SPACED_THOUSANDS = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")


class Number(NamedTuple):
    """A number of a text: its digits without separators, where it ends, and whether it is part of a name."""

    digits: str
    end: int
    named: bool


class _Table(dict[int, str | None]):
    """Maps a character to what it counts as: itself, another, a space, or nothing."""

    def __missing__(self, key: int) -> str:
        char = chr(key)
        if unicodedata.category(char)[0] in "LMN" or char in _INSIDE:
            found = char
        else:
            found = f" {char} " if char in "%٪" else " "
        self[key] = found
        return found


_TABLE = _Table({**dict.fromkeys(_OPTIONAL), **{ord(k): v for k, v in _SAME.items()}})


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """Return a text as its folded words, one space between them."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", plain).translate(_TABLE).split())


def unspaced(text: str) -> bool:
    """Say whether a text is in a script without spaces between words."""
    return _UNSPACED.search(text) is not None


def closed(text: str) -> str:
    """Return a folded text without the spaces that a script does not need."""
    return text.replace(" ", "") if unspaced(text) else text


def holds(text: str, form: str) -> bool:
    """Say whether a folded text holds a folded form: at the beginning of a word, in unspaced scripts anywhere."""
    return f" {form}" in f" {text}" if not unspaced(form) else closed(form) in closed(text)


def numbers(text: str) -> list[Number]:
    """Return the numbers of a text, digits of all scripts as 0-9, separators left out.

    One that follows a letter, or a letter and a hyphen, is part of a name (N95, COVID-19).
    """
    plain = _SPACED_THOUSANDS.sub("", unicodedata.normalize("NFKC", text))
    plain = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in plain)
    return [
        Number(re.sub(r"\D", "", m.group()).lstrip("0") or "0", m.end(), _in_name(plain, m.start()))
        for m in _NUMBER.finditer(plain)
    ]


def _in_name(text: str, start: int) -> bool:
    before = f"  {text[:start]}"[-2:]
    if before[1] in "-‐‑–_":
        return before[0].isalpha()
    return before[1].lower() != before[1].upper()


@cache
def table(name: str) -> Mapping[str, Any]:
    """Return a table of `data/audit` by name."""
    return parse(resources.files("polyclinic.data").joinpath(f"audit/{name}.yaml").read_text("utf-8"), f"{name}.yaml")


def digits(text: str, language: str) -> tuple[dict[str, set[str]], Counter[str]]:
    """Return the numbers a text states, each with its other ways, and how often each may be meant.

    Another way is the number multiplied by the word behind it. The second also holds the parts of
    names and numbers that stand there as words.
    """
    stated: dict[str, set[str]] = {}
    passing: Counter[str] = Counter()
    plain = _SPACED_THOUSANDS.sub("", unicodedata.normalize("NFKC", text))
    for number in numbers(text):
        ways = {number.digits, *_scaled(number, plain, language)}
        passing.update(ways)
        if not number.named:
            stated.setdefault(number.digits, set()).update(ways)
    spaced = f" {fold(text)} "
    for value, words in table("numbers")["words"].get(language, {}).items():
        passing[value] += sum(spaced.count(f" {word} ") for word in words)
    return stated, +passing


def _scaled(number: Number, text: str, language: str) -> Iterator[str]:
    """Yield a number times the word that follows it, in all languages that have such words."""
    rest = text[number.end :].lstrip().casefold()
    factors = {**table("numbers")["scales"].get("en", {}), **table("numbers")["scales"].get(language, {})}
    found = max((word for word in factors if rest.startswith(word)), key=len, default=None)
    if found:  # 1.2 million is 1200000: a decimal point takes its digits from the zeros
        written = re.search(r"[.,](\d+)$", text[: number.end])
        shift = len(written[1]) if written and len(written[1]) < 3 else 0  # noqa: PLR2004 - three are thousands
        yield str(int(number.digits) * factors[found] // 10**shift)
