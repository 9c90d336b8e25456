"""A glossary: terms of one language with the forms that may stand for them in others.

A CSV file with a row for each form: `source_language,term,language,form` and, if wanted, `kind`
(drug, disease, ...) for counting. Several rows of one term and language are its several forms.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from polyclinic.corpus.folding import closed, fold, holds, unspaced
from polyclinic.errors import DataError

COLUMNS = ("source_language", "term", "language", "form")
STEM = 0.7  # share of a word's letters that an inflected form keeps
MIN_STEM = 4
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
        for entry in entries:
            key = fold(entry.term)
            if not key or not fold(entry.form):
                continue
            place = self._terms.setdefault((entry.source_language, entry.language), {})
            known = place.get(key, Term(key, entry.kind, ()))
            if entry.form not in known.forms:
                place[key] = known._replace(forms=(*known.forms, entry.form))
        self._forms = {pair: _by_form(terms.values()) for pair, terms in self._terms.items()}
        self._longest = {pair: max(len(t.split()) for t in terms) for pair, terms in self._terms.items()}

    def pairs(self) -> set[tuple[str, str]]:
        """Return the pairs of languages that the glossary has terms for."""
        return set(self._terms)

    def terms(self, source_language: str, language: str) -> Mapping[str, Term]:
        """Return the terms of a pair of languages by their folded form."""
        return self._terms.get((source_language, language), {})

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
                if term is not None:
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
        longest = max((len(form.split() if spaced else form) for form in forms), default=0)
        found: dict[str, list[str]] = {}
        at = 0
        while at < len(pieces):
            sizes = range(min(longest, len(pieces) - at), 0, -1)
            tried = ((" " if spaced else "").join(pieces[at : at + size]) for size in sizes)
            form = next((form for form in tried if form in forms), None)
            if form is not None:
                found[form] = forms[form]
            at += 1 if form is None else len(form.split() if spaced else form)
        return found


def _by_form(terms: Iterable[Term]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for term in terms:
        for form in term.forms:
            if len(closed(fold(form))) >= MIN_FORM:
                out.setdefault(closed(fold(form)), []).append(term.term)
    return out


def _singular(terms: Mapping[str, Term], text: str) -> Term | None:
    """Return the term that a text is, as it stands or without a plural's s."""
    for form in (text, text.removesuffix("s"), text.removesuffix("es")):
        if form in terms:
            return terms[form]
    return None


def present(forms: Sequence[str], text: str) -> bool:
    """Say whether a text holds one of the forms as it is written."""
    folded = fold(text)
    return any(holds(folded, fold(form)) for form in forms)


def present_inflected(forms: Sequence[str], text: str) -> bool:
    """Say whether a text holds one of the forms, its words inflected or apart from each other."""
    folded = closed(fold(text))
    return any(all(stem(word) in folded for word in closed(fold(form)).split()) for form in forms)


def stem(word: str) -> str:
    """Return the beginning of a word that its inflected forms share."""
    return word[: max(MIN_STEM, round(len(word) * STEM))]


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
