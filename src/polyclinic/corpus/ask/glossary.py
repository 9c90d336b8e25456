"""A glossary: terms of one language with the forms that may stand for them in others.

A CSV file with a row for each form: `source_language,term,language,form` and, if wanted, `kind`
(drug, disease, ...) for counting. Several rows of one term and language are its several forms.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from polyclinic.corpus.ask.folding import closed, fold, unspaced
from polyclinic.corpus.ask.forms import ACRONYM
from polyclinic.errors import DataError

COLUMNS = ("source_language", "term", "language", "form")
SMALL = frozenset(("for", "of", "and", "the", "in"))
ROOT, MIN_ROOT = 6, 5  # letters that terms of one family share, at least if one of them is shorter
MIN_FORM = 2  # characters that name a term by themselves


class Entry(NamedTuple):
    """One form that a term takes in a language."""

    source_language: str
    term: str
    language: str
    form: str
    kind: str = "term"


class Term(NamedTuple):
    """A term of a source text, folded, and what may stand for it."""

    term: str
    kind: str
    forms: tuple[str, ...]  # as the glossary writes them


class Glossary:
    """Finds the terms of a text, longest first, and says whether a translation has them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._terms: dict[tuple[str, str], dict[str, Term]] = {}
        self._acronyms: set[str] = set()
        for entry in entries:
            key = fold(entry.term)
            if not key or not fold(entry.form):
                continue
            place = self._terms.setdefault((entry.source_language, entry.language), {})
            known = place.get(key, Term(key, entry.kind, ()))
            if ACRONYM.fullmatch(entry.term):
                self._acronyms.add(key)
            if entry.form not in known.forms:
                place[key] = known._replace(forms=(*known.forms, entry.form))
        self._forms = {pair: _by_form(terms.values()) for pair, terms in self._terms.items()}
        self._longest = {pair: max(len(t.split()) for t in terms) for pair, terms in self._terms.items()}
        self._roots = {pair: _by_root(terms.values()) for pair, terms in self._terms.items()}
        self._sizes = {pair: (_sizes(forms, str.split), _sizes(forms, tuple)) for pair, forms in self._forms.items()}

    def pairs(self) -> set[tuple[str, str]]:
        """Return the pairs of languages that the glossary has terms for."""
        return set(self._terms)

    def terms(self, source_language: str, language: str) -> Mapping[str, Term]:
        """Return the terms of a pair of languages by their folded form."""
        return self._terms.get((source_language, language), {})

    def family(self, term: str, source_language: str, language: str) -> list[Term]:
        """Return the other terms of one root (infection, infected; by first letters) or the name an acronym is of."""
        near = self._roots.get((source_language, language), {})
        roots = near.get(term[:MIN_ROOT], ()) if " " not in term else ()
        alike = [other for other in roots if other.term.isalpha() and _akin(other.term, term)]
        names = [*near.get(_initials(term), ()), *near.get(f"{term}:", ())]
        return [other for other in [*alike, *names] if other.term != term]

    def find(self, text: str, source_language: str, language: str) -> list[Term]:
        """Return the terms of a source text in order; where two overlap, the longer one, each once."""
        terms = self.terms(source_language, language)
        if not terms:
            return []
        words = fold(text).split()
        found: dict[str, Term] = {}
        at = 0
        while at < len(words):
            step = 1
            for size in range(min(self._longest[source_language, language], len(words) - at), 0, -1):
                term = _singular(terms, " ".join(words[at : at + size]))
                if term is not None and (term.term not in self._acronyms or _written(term.term, text)):
                    found[term.term] = term
                    step = size
                    break
            at += step
        return list(found.values())

    def find_forms(self, text: str, source_language: str, language: str) -> dict[str, list[str]]:
        """Return the folded forms that a translation holds as written, longest first, with the terms of each."""
        forms = self._forms.get((source_language, language), {})
        folded = fold(text)
        spaced = not unspaced(folded)
        pieces: Sequence[str] = folded.split() if spaced else closed(folded)
        sizes = self._sizes[source_language, language][not spaced] if forms else {}
        found: dict[str, list[str]] = {}
        at = 0
        while at < len(pieces):
            tried = ((size, (" " if spaced else "").join(pieces[at : at + size])) for size in sizes.get(pieces[at], ()))
            size, form = next(((size, form) for size, form in tried if form in forms), (1, None))
            if form is not None:
                found[form] = forms[form]
            at += size
        return found


def _by_form(terms: Iterable[Term]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for term in terms:
        for form in term.forms:
            if len(closed(fold(form))) >= MIN_FORM:
                out.setdefault(closed(fold(form)), []).append(term.term)
    return out


def _by_root(terms: Iterable[Term]) -> dict[str, list[Term]]:
    """Return terms by their first letters, whole words by themselves, names by their initials and a colon."""
    out: dict[str, list[Term]] = {}
    for term in terms:
        keys = {term.term[:MIN_ROOT], term.term} if term.term.isalpha() else {f"{_initials(term.term)}:"}
        for key in keys:
            out.setdefault(key, []).append(term)
    return out


def _akin(one: str, other: str) -> bool:
    short, long = sorted((one[:ROOT], other[:ROOT]), key=len)
    return len(short) >= MIN_ROOT and long.startswith(short)


def _initials(term: str) -> str:
    """Return the first letters of a name of several words, without its small words."""
    words = [word for word in term.split() if word not in SMALL]
    return "".join(word[0] for word in words) if len(words) > 2 else ""  # noqa: PLR2004


def _sizes(forms: Iterable[str], cut: Callable[[str], Sequence[str]]) -> dict[str, list[int]]:
    """Return of how many pieces the forms are that begin with a piece, most first."""
    found: dict[str, set[int]] = {}
    for pieces in map(cut, forms):
        found.setdefault(pieces[0], set()).add(len(pieces))
    return {piece: sorted(sizes, reverse=True) for piece, sizes in found.items()}


def _written(acronym: str, text: str) -> bool:
    """Say whether a text has an acronym in capitals, so that `who` is not the WHO."""
    return re.search(rf"\b{acronym.upper()}", text) is not None


def _singular(terms: Mapping[str, Term], text: str) -> Term | None:
    """Return the term that a text is, as it stands or without a plural's s."""
    for form in (text, text.removesuffix("s"), text.removesuffix("es")):
        if form in terms:
            return terms[form]
    return None


def read(path: Path) -> Glossary:
    """Read a glossary; raises DataError that names the line which cannot be used."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(path, f"no column {', '.join(missing)}", f"the first line is {','.join(COLUMNS)}")
            return Glossary(_entry(path, rows.line_num, row) for row in rows)
    except OSError as err:
        raise DataError(path, f"cannot be read ({type(err).__name__})", "check the name of the glossary") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(path, f"is no UTF-8 CSV file ({type(err).__name__})", "save it as CSV in UTF-8") from err


def _entry(path: Path, line: int, row: Mapping[str | None, str | None]) -> Entry:
    values = [(row.get(name) or "").strip() for name in COLUMNS]
    if not all(values):
        raise DataError(f"{path}:{line}", "an empty cell", f"fill {', '.join(COLUMNS)}")
    return Entry(values[0], values[1], values[2], values[3], (row.get("kind") or "term").strip())
