"""Derived questions: which of four words of a language is the translation of an English term.

Made from the terminology lists of TICO-19, where records with one `parallel_id` translate each
other. No exam: a signal in languages that have none.
"""

import difflib
import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import NamedTuple

from polyclinic.evaluate.suite.local import data_folder, file_of, lines
from polyclinic.evaluate.suite.rows import Record, wanted
from polyclinic.evaluate.suite.table import Exam
from polyclinic.languages import language
from polyclinic.records import Question

ENGLISH = "en"  # the side that is asked for
WRONG = 3  # options beside the right one
NEAR = 0.8  # ratio of difflib from which two words count as one
CONTAINED = 4  # letters from which a word inside another counts as near it, and an English word is compared
DRAWN = 30  # of a list, of which those become options that look most like the English term
# The lists are of one epidemic: what names it, in whatever way, is right for what else does.
ONE_DISEASE = re.compile("covid|corona|ncov|sarscov|cov2")
SAME, FEW, TWICE = "written as in English", "too few other terms", "one term twice"


class Term(NamedTuple):
    """An English term and one translation, with what is compared of both."""

    id: str
    group: str
    english: str
    native: str
    folded_english: str
    folded: str
    words: frozenset[str]  # longer ones of the English term, without names of the one disease
    named: bool  # whether there is one


def records(exam: Exam, code: str, root: Path | None, left_out: Counter[str]) -> list[Record]:
    """Return the questions of a language, in the order of its list; counts the terms that make none."""
    found = terms(exam, code, root)
    order = sorted(found, key=lambda one: _draw(code, one.id))
    right = defaultdict(set)  # English terms may share a translation, and have several
    for term in found:
        right[term.folded_english].add(term.folded)
    out: list[Record] = []
    for term in usable(found, left_out):
        wrong = distractors(term, order, right[term.folded_english])
        if len(wrong) < WRONG:
            left_out[FEW] += 1
        else:
            out.append(Record(_question(exam, term, wrong, code)))
    return out


def usable(found: Sequence[Term], left_out: Counter[str]) -> list[Term]:
    """Return the terms that ask something; counts those that their English gives away, and repeated ones."""
    out = {}
    for term in found:
        pair = (term.folded_english, term.folded)
        if term.folded == term.folded_english or pair in out:
            left_out[SAME if term.folded == term.folded_english else TWICE] += 1
        else:
            out[pair] = term
    return list(out.values())


def terms(exam: Exam, code: str, root: Path | None) -> list[Term]:
    """Return the terms that a language and English both have."""
    folder = data_folder(root)
    english = {row["parallel_id"]: str(row["text"]).strip() for row in _rows(exam, ENGLISH, folder)}
    out = []
    for row in _rows(exam, code, folder):
        group, native = row["parallel_id"], str(row["text"]).strip()
        if group in english and fold(native) and fold(english[group]):
            said = english[group]
            out.append(Term(row["id"], group, said, native, fold(said), fold(native), *words(said)))
    return out


def _rows(exam: Exam, code: str, folder: Path) -> Iterator[Mapping[str, str]]:
    for _, row in lines(folder / file_of(exam, code)):
        if wanted(row, exam, code) and {"id", "parallel_id", "text"} <= set(row):
            yield row


def distractors(term: Term, order: Sequence[Term], right: Set[str]) -> list[Term]:
    """Return three terms whose translations are wrong here, the same ones every time.

    Left out are those that translate the same English term, share a word with it or may be another
    name of it, and whatever is nearly the term, its translation or another distractor. Of those
    drawn the ones that look most like the English term are taken: where languages share words, the
    right one is not to be found by its letters alone.
    """
    letters = _pairs(term.folded_english)
    drawn = _drawn(term, order, right)
    out: list[Term] = []
    for other in sorted(drawn, key=lambda one: -_overlap(letters, _pairs(one.folded))):
        if len(out) < WRONG and not any(_near(other, one) for one in (term, *out)):
            out.append(other)
    return out


def _drawn(term: Term, order: Sequence[Term], right: Set[str]) -> list[Term]:
    """Return what follows a term in an order drawn once, without what may be right for it."""
    start = order.index(term)
    turned = (order[(start + i) % len(order)] for i in range(1, len(order)))
    fit = (one for one in turned if one.folded not in right and not _related(term, one))
    return list(itertools.islice(fit, DRAWN))


def _related(term: Term, other: Term) -> bool:
    """Say whether the English terms share a word, or are names of the one disease with nothing beside."""
    both = term.named and other.named and not (term.words and other.words)
    return both or bool(term.words & other.words)


def _question(exam: Exam, term: Term, wrong: list[Term], code: str) -> Question:
    shown = sorted([term, *wrong], key=lambda one: _draw("order", code, term.id, one.id))
    return Question(
        id=f"{term.id}-{code}",
        language=code,
        source=exam.name,
        licence=exam.licence,
        group=term.group,
        split=exam.split,
        question=f"{term.english} ({language(ENGLISH).native_name}) = ? ({language(code).native_name})",
        options=tuple(one.native for one in shown),
        answers=(shown.index(term),),
    )


def _draw(*parts: str) -> bytes:
    """Return a number that depends on nothing but these texts."""
    return hashlib.sha256("\n".join(parts).encode()).digest()


@cache
def fold(text: str) -> str:
    """Return the letters and digits of a text without case and marks."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in plain if c.isalnum())


@cache
def _pairs(folded: str) -> frozenset[str]:
    return frozenset(one + other for one, other in itertools.pairwise(folded))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of two sets of letter pairs that both have."""
    return len(one & other) / (len(one | other) or 1)


@cache
def words(english: str) -> tuple[frozenset[str], bool]:
    """Return the longer words of an English term that name no disease, and whether others do."""
    found = {fold(word) for word in re.split(r"[\s/()-]+", english)}
    named = {word for word in found if ONE_DISEASE.search(word)}
    return frozenset(word for word in found - named if len(word) >= CONTAINED), bool(named)


def _near(one: Term, other: Term) -> bool:
    """Say whether two terms are nearly one in either language, or one translation holds the other."""
    short, long = sorted((one.folded, other.folded), key=len)
    inside = len(short) >= CONTAINED and short in long
    return inside or _alike(one.folded, other.folded) or _alike(one.folded_english, other.folded_english)


@cache
def _alike(one: str, other: str) -> bool:
    """Say whether most letters of two folded words are the same in order."""
    if 2 * min(len(one), len(other)) < NEAR * (len(one) + len(other)):
        return False
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return one == other or (matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR)
