"""The table of languages: codes, names, script, direction and Glottolog lineage.

This and the family presets (`families.py`) are the only places that know a language; code asks the
table, it never compares a code. The rows are `data/languages.csv`, made by
`scripts/build_languages.py` from Glottolog 5.1 and CLDR (see `data/SOURCES.md`).
"""

import csv
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from polyclinic.errors import UnknownLanguageError

_TABLE = "data/languages.csv"
_QUOTE_HINT = 'quote every code, Norwegian is "no": some YAML readers take a bare no for false'


@dataclass(frozen=True)
class Language:
    """One language; `lineage` is Glottolog's, root first, without the language itself."""

    code: str
    name: str
    native_name: str
    script: str
    direction: str
    iso639_3: str
    glottocode: str
    lineage: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def family(self) -> str:
        """Return the top-level family."""
        return self.lineage[0]


def _from_row(row: Mapping[str, str]) -> Language:
    return Language(
        code=row["code"],
        name=row["name"],
        native_name=row["native_name"],
        script=row["script"],
        direction=row["direction"],
        iso639_3=row["iso639_3"],
        glottocode=row["glottocode"],
        lineage=tuple(row["lineage"].split(" > ")),
        aliases=tuple(row["aliases"].split()),
    )


@cache
def all_languages() -> Mapping[str, Language]:
    """Return every known language by its code, in the order of the table."""
    lines = (files("polyclinic") / _TABLE).read_text(encoding="utf-8").splitlines()
    return MappingProxyType({row["code"]: _from_row(row) for row in csv.DictReader(lines)})


@cache
def _by_any_code() -> Mapping[str, Language]:
    rows = all_languages().values()
    return {code: row for row in rows for code in (row.code, *row.aliases)}


def language(code: str, *, where: str = "language") -> Language:
    """Return the language of a code, alias or tag such as pt-BR; upper and lower case are one.

    Only the first part of a tag counts: the table holds one script per language. `where` is what
    an error names as the place of the fault. A value that is no string is refused rather than
    turned into one, since YAML reads an unquoted `no` as false.
    """
    if not isinstance(code, str):
        raise UnknownLanguageError(where, f"a language code, not {code!r}, was expected", _QUOTE_HINT)
    known = _by_any_code()
    wanted = code.strip().lower()
    found = known.get(wanted) or known.get(re.split("[-_]", wanted)[0])
    if found is None:
        raise UnknownLanguageError(where, f"unknown language {code!r}", _suggestion(wanted))
    return found


def _suggestion(wanted: str) -> str:
    words = dict(_searchable())
    nearest = difflib.get_close_matches(wanted, words, n=5, cutoff=0.5)
    if not nearest:
        return f"`polyclinic languages` lists the {len(all_languages())} known"
    labels = dict.fromkeys(f"{words[word].code} ({words[word].name})" for word in nearest)
    return f"did you mean {', '.join(labels)}? `polyclinic languages` lists all"


def _searchable() -> Iterator[tuple[str, Language]]:
    """Yield every word a user may have meant; codes last, since they win over equal names."""
    for row in all_languages().values():
        yield row.name.lower(), row
        yield row.native_name.lower(), row
    yield from _by_any_code().items()
