"""The letters of a text and the scripts they are of, from the Unicode names of characters.

A script is an ISO 15924 code. Two are read more widely than there: `Hani` is every Han character,
simplified or traditional, and `Kana` is hiragana as well as katakana.
"""

import unicodedata
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

SPACE = 32
LAST = 0x1FFFF  # what lies above are Han characters of the extensions, or no letters
# First word of a character's Unicode name -> its script.
NAMED = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARMENIAN": "Armn", "GEORGIAN": "Geor",
    "ARABIC": "Arab", "HEBREW": "Hebr", "THAANA": "Thaa", "NKO": "Nkoo", "SYRIAC": "Syrc", "ETHIOPIC": "Ethi",
    "TIFINAGH": "Tfng", "DEVANAGARI": "Deva", "BENGALI": "Beng", "GURMUKHI": "Guru", "GUJARATI": "Gujr",
    "ORIYA": "Orya", "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda", "MALAYALAM": "Mlym", "SINHALA": "Sinh",
    "OL": "Olck", "MEETEI": "Mtei", "DOGRA": "Dogr", "THAI": "Thai", "LAO": "Laoo", "TIBETAN": "Tibt",
    "MYANMAR": "Mymr", "KHMER": "Khmr", "MONGOLIAN": "Mong", "JAVANESE": "Java", "SUNDANESE": "Sund",
    "BALINESE": "Bali", "ADLAM": "Adlm", "CHEROKEE": "Cher", "CANADIAN": "Cans", "YI": "Yiii", "HANGUL": "Hang",
    "HIRAGANA": "Kana", "KATAKANA": "Kana", "BOPOMOFO": "Bopo", "CJK": "Hani",
}  # fmt: skip
SCRIPTS = ("", "any", "other", *sorted(set(NAMED.values())))  # by number: no letter, a mark of any script, unlisted
ANY, OTHER = 1, 2
WIDTHS = ("FULLWIDTH", "HALFWIDTH")
# How the table of languages names scripts that are made of others.
MADE_OF = {"Hans": {"Hani"}, "Hant": {"Hani"}, "Jpan": {"Kana", "Hani"}, "Kore": {"Hang", "Hani"}}
JOINERS = "\u200c\u200d"  # inside words of Persian, Sorani, Hindi and others


@cache
def _numbers() -> NDArray[np.uint8]:
    """Return for each code point the number of its script in SCRIPTS."""
    number = {script: index for index, script in enumerate(SCRIPTS)}
    table = np.zeros(LAST + 1, dtype=np.uint8)
    for point in range(LAST):
        character = chr(point)
        if unicodedata.category(character)[0] in "LM":
            words = [word for word in unicodedata.name(character, "").split() if word not in WIDTHS]
            first = words[0] if words else ""
            table[point] = ANY if first in ("COMBINING", "MODIFIER") else number.get(NAMED.get(first, "other"), OTHER)
    table[[ord(joiner) for joiner in JOINERS]] = ANY
    table[LAST] = number["Hani"]
    return table


@lru_cache(maxsize=1)  # whoever asks for the scripts of a text asks for its letters next
def letters(text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the code points of a text in lower case, and how many letters are of each of SCRIPTS.

    Whatever stands between words is one space, also before the first and after the last.
    """
    points = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    scripts = _numbers().take(points, mode="clip")
    counts = np.bincount(scripts, minlength=len(SCRIPTS))
    apart = scripts == 0
    out = np.full(len(points) + 2, SPACE, dtype=np.uint32)
    out[1:-1] = points
    out[1:-1][apart] = SPACE
    kept = np.ones(len(out), dtype=np.bool_)
    kept[1:] = (out[1:] != SPACE) | (out[:-1] != SPACE)
    found = out[kept]
    for array in (found, counts):
        array.flags.writeable = False
    return found, counts


def shares(counts: NDArray[np.int64]) -> dict[str, int]:
    """Return the scripts that a text has letters of, most first, with how many."""
    found = {script: int(n) for script, n in zip(SCRIPTS[ANY + 1 :], counts[ANY + 1 :], strict=True) if n}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def expand(script: str) -> frozenset[str]:
    """Return the scripts, as `shares` names them, that a script of the table of languages is made of."""
    return frozenset(MADE_OF.get(script, {script}))
