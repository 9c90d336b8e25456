"""Slips of the hand in any script, drawn by a seed: the same text, level and seed give the same slips.

A slip changes one written unit (a letter with its marks) or swaps it with the next, so the number of
units never changes. Digits, signs and the words next to numbers are left alone: another dose is
another question.
"""

import itertools
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources

from polyclinic.strict_yaml import parse

SHARE = 0.03  # of the letters of a text that slip at each level
LEVELS = 4
FILE = "data/keyboards.yaml"
_AMOUNT = re.compile(r"[^\W\d]*-?\d[\d.,/-]*\s?[^\W\d]*(?:/[^\W\d]+)?")
_VIRAMA = "\u094d"
# Only the order of these slips: one character is a word, and no key is its neighbour.
_ONLY_SWAPPED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
_SWAPS = dict(zip("िीुूेैोौأإآىةаоиеіы", "ीिूुैेौोااايهоаеиыі", strict=True))
Slip = Callable[[str, random.Random], str | None]


def with_typos(text: str, level: int, seed: str) -> str:
    """Return a text with the slips of a level, 0 none to 4 many; those of a lower level are among them.

    At each level 3 % of the letters slip, at least one more than at the level below as long as there
    are letters that can.
    """
    units = list(written_units(text))
    order = random.Random(f"typos {seed}")  # noqa: S311 - no secret
    places = [i for i in words_only(text, units) if _may_slip(units, i)]
    wanted = level * max(1, round(SHARE * len(places)))
    order.shuffle(places)
    touched: list[int] = []
    for place in places:
        # Neighbours are left alone: a slip there could undo this one.
        if len(touched) < wanted and not {place - 2, place - 1, place + 1}.intersection(touched):
            touched.append(place)
            _slip(units, place, f"{seed} {place}")
    return "".join(units)


def words_only(text: str, units: list[str]) -> list[int]:
    """Return the places of units that are not part of an amount, nor the last before one."""
    taken = {at for match in _AMOUNT.finditer(text) for at in range(match.start() - 1, match.end())}
    starts = itertools.accumulate((len(unit) for unit in units), initial=0)
    return [place for place, start in enumerate(itertools.islice(starts, len(units))) if start not in taken]


def written_units(text: str) -> Iterator[str]:
    """Yield letters, each with the marks that stand on it."""
    held = ""
    for char in text:
        joins = unicodedata.category(char)[0] == "M" or char in "\u200c\u200d"
        if held and (joins or (held.endswith(_VIRAMA) and char.isalpha())):
            held += char
            continue
        if held:
            yield held
        held = char
    if held:
        yield held


def script_of(unit: str) -> str:
    """Return the first word of the name of a unit's letter: LATIN, CYRILLIC, CJK ..."""
    return unicodedata.name(unit[0], "?").split()[0].split("-")[0]


def _may_slip(units: list[str], place: int) -> bool:
    """Say whether a unit is a letter inside a word whose next letter is another."""
    here, after = units[place], units[place + 1] if place + 1 < len(units) else ""
    return here[0].isalpha() and after[:1].isalpha() and here != after and script_of(here) == script_of(after)


def _slip(units: list[str], place: int, seed: str) -> None:
    """Let the unit at a place slip in one of the ways its script allows; the draw is the same at each level."""
    order = random.Random(f"slip {seed}")  # noqa: S311 - no secret
    here = units[place]
    ways: list[Slip] = [] if script_of(here) in _ONLY_SWAPPED else [_neighbour, _without_mark, _mistaken]
    changed = [new for way in ways if (new := way(here, order)) not in (None, here)]
    picked = order.randrange(len(changed) + 1)
    if picked < len(changed):
        units[place] = str(changed[picked])
    else:
        units[place], units[place + 1] = units[place + 1], here


def _neighbour(unit: str, order: random.Random) -> str | None:
    """Return the letter of a key beside this one, in the same case; its marks stay."""
    keys = keyboards().get(unit[0].lower())
    if not keys:
        return None
    new = order.choice(keys)
    return (new.upper() if unit[0].isupper() else new) + unit[1:]


def _without_mark(unit: str, order: random.Random) -> str | None:
    """Return a letter without one of its marks: an accent, a vowel, a tone."""
    marks = [i for i, char in enumerate(unit) if unicodedata.category(char)[0] == "M" and char != _VIRAMA]
    if marks:
        at = order.choice(marks)
        return unit[:at] + unit[at + 1 :]
    bare = unicodedata.normalize("NFD", unit)
    return bare[0] if len(bare) > 1 and script_of(bare) == script_of(unit) else None


def _mistaken(unit: str, order: random.Random) -> str | None:
    """Return a letter with what is mistaken for it: a long vowel for a short one, a bare alef for one with hamza."""
    found = [i for i, char in enumerate(unit) if char in _SWAPS]
    if not found:
        return None
    at = order.choice(found)
    return unit[:at] + _SWAPS[unit[at]] + unit[at + 1 :]


@cache
def keyboards() -> dict[str, list[str]]:
    """Return the neighbours of each key."""
    rows = parse(resources.files("polyclinic.data").joinpath("keyboards.yaml").read_text("utf-8"), FILE)
    near: dict[str, list[str]] = {}
    for row in (row for rows_of_script in rows.values() for row in rows_of_script):
        for at, key in enumerate(row):
            near[key] = [*row[max(at - 1, 0) : at], *row[at + 1 : at + 2]]
    return near
