"""Is a translation faithful? Terms, numbers, units, negation, length, language; each check by itself.

The audit compares a source text with its translation and names what fails. A check that cannot be
made for a language says so; it never passes silently. Terms are looked up in a glossary, cues of
negation and units in `data/audit`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from polyclinic.corpus.ask.folding import closed, digits, fold, holds, table
from polyclinic.corpus.ask.forms import has_term, present, rendered, stem, word_parts
from polyclinic.corpus.ask.glossary import Glossary, Term

CHECKS = ("term", "number", "unit", "negation", "length", "language")
NOT_CHECKED = "not checked"
SMALL = 12  # numbers up to here are often written as words
COPIED = 0.5  # of the source's runs of letters found in the translation: it was copied
RUN = 6
MIN_COPIED = 20  # runs that make the share mean anything

Verdict = Callable[[str, str], str]


class Pair(NamedTuple):
    """A source text and its translation."""

    source_language: str
    language: str
    source: str
    target: str
    id: str = ""


class Finding(NamedTuple):
    """One thing that is wrong: which check, what of the source, and what was wanted of the translation."""

    check: str
    item: str
    wanted: str


class Norms(NamedTuple):
    """What is usual between two languages; `norms.learn` makes it of translations known to be good.

    `length`: mean and deviation of log(target/source characters); `terms` and `cues`: share of the
    uses of a term or of a word of negation that good translations keep, `others` of the rest;
    `forms`: beginnings of words that stand for a term where none of the glossary's forms does;
    `strangers`: share of the translations that hold a form whose source has none of its terms, "": of a new form.
    """

    length: tuple[float, float] = (0.0, 0.5)
    terms: Mapping[str, float] = {}
    cues: Mapping[str, float] = {}
    others: float = 1.0
    forms: Mapping[str, tuple[str, ...]] = {}
    strangers: Mapping[str, float] = {}


class Audit(NamedTuple):
    """What was looked for and found (`term`, `term found`, ...), and all that fails."""

    counts: Counter[str]
    findings: list[Finding]


class Limits(NamedTuple):
    """How strict an audit is."""

    reliability: float = 0.0  # a term or cue that good translations hold less often is counted, not failed
    cues: float = 0.6
    strangers: float = 0.1  # a form whose term good sources lack more often than this says nothing
    deviations: float = 3.3  # of the length


def audit(
    pair: Pair, glossary: Glossary, verdict: Verdict | None = None, norms: Norms | None = None,
    limits: Limits | None = None,
) -> Audit:  # fmt: skip
    """Audit one translation; without norms every term counts and lengths may differ by a factor of 4.5."""
    norms, limits = norms or Norms(), limits or Limits()
    counts: Counter[str] = Counter()
    findings = [
        *_terms(pair, glossary, norms, limits, counts),
        *_numbers(pair, counts),
        *_units(pair, counts),
        *_negation(pair, norms, limits, counts),
        *_length(pair, norms, limits, counts),
        *_language(pair, verdict, counts),
    ]
    counts.update(f"failed {name}" for name in {f.check for f in findings})
    return Audit(counts, findings)


def _terms(pair: Pair, glossary: Glossary, norms: Norms, limits: Limits, counts: Counter[str]) -> Iterable[Finding]:
    found = glossary.find(pair.source, pair.source_language, pair.language)
    if not glossary.terms(pair.source_language, pair.language):
        counts[f"{NOT_CHECKED} term"] += 1
    lacking = []
    for term in found:
        counts["term"] += 1
        counts[f"kind {term.kind}"] += 1
        if present(term.forms, pair.target):
            counts["term found"] += 1
            counts[f"kind {term.kind} found"] += 1
        counts["term found inflected"] += has_term(term.forms, pair.target, pair.language)
        if not kept(term, pair, glossary, norms.forms):
            lacking.append(term)
            if norms.terms.get(term.term, norms.others) >= limits.reliability:
                yield Finding("term", term.term, term.forms[0])
    if lacking and norms.strangers:  # another term may have taken its place
        for form in strangers(pair, glossary):
            if norms.strangers.get(form, norms.strangers.get("", 0.0)) <= limits.strangers:
                yield Finding("term", lacking[0].term, f"no {form}")


def strangers(pair: Pair, glossary: Glossary) -> list[str]:
    """Return the folded forms in a translation none of whose terms, nor of their families, stands in the source."""
    source, languages = f" {fold(pair.source)}", (pair.source_language, pair.language)

    def stated(term: str) -> bool:
        family = glossary.family(term, *languages)
        return f" {stem(term)}" in source or any(f" {stem(one.term)}" in source for one in family)

    held = glossary.find_forms(pair.target, *languages)
    return [form for form, terms in held.items() if not any(map(stated, terms))]


def kept(term: Term, pair: Pair, glossary: Glossary, forms: Mapping[str, Sequence[str]]) -> bool:
    """Say whether a translation holds a term or one of its family, or else each of its words by itself."""
    languages = pair.source_language, pair.language
    family = (term, *glossary.family(term.term, *languages))
    if any(_stands(one, pair, forms) for one in family):
        return True
    known = glossary.terms(*languages)
    parts = [known.get(word, Term(word, "", ())) for word in word_parts(term.term)]
    return bool(parts) and all(kept(part, pair, glossary, forms) for part in parts)


def _stands(term: Term, pair: Pair, forms: Mapping[str, Sequence[str]]) -> bool:
    """Say whether a translation holds one of the glossary's forms or of those learned."""
    return has_term(term.forms, pair.target, pair.language) or rendered(
        pair.target, forms.get(term.term, ()), pair.language
    )


def _numbers(pair: Pair, counts: Counter[str]) -> Iterable[Finding]:
    """Find numbers that are gone, if large or if others stand in their place, and numbers that came."""
    stated, passing = digits(pair.source, pair.source_language)
    written, allowed = digits(pair.target, pair.language)
    counts["number"] += len(stated)
    gone = sorted(n for n, ways in stated.items() if not ways & allowed.keys())
    counts["number found"] += len(stated) - len(gone)
    new = sorted(n for n, ways in written.items() if not ways & passing.keys())
    fewer = [n for n in stated if n in allowed and allowed[n] < passing[n]]
    more = [n for n in written if n in passing and allowed[n] > passing[n]]
    yield from (Finding("number", n, n) for n in gone if new or more or int(n) > SMALL)
    if not gone:
        yield from (Finding("number", "", f"no {n}") for n in new)
    if not gone and not new and fewer and more:
        yield Finding("number", fewer[0], fewer[0])


@cache
def _unit_forms(language: str) -> tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]:
    """Return unit, kind, signs and words of each unit of a language."""
    return tuple(
        (name, unit["kind"], tuple(map(fold, unit.get("all", ()))), tuple(map(fold, unit.get(language, ()))))
        for name, unit in table("units").items()
    )


def units(text: str, language: str) -> dict[str, str]:
    """Return the units that a text names, with what each measures."""
    folded = fold(text)
    spaced = f" {folded} "
    found = {}
    for name, kind, signs, words in _unit_forms(language):
        if any(_sign(sign, spaced) for sign in signs) or any(holds(folded, word) for word in words):
            found[name] = kind
    return found


def _sign(sign: str, spaced: str) -> bool:
    """Say whether a sign stands behind a number, with or without a space."""
    at = spaced.find(f"{sign} ")
    while at > 0:
        before = spaced[:at].rstrip()
        if before[-1:].isdigit() or (before and sign in "%°c°f"):
            return True
        at = spaced.find(f"{sign} ", at + 1)
    return False


def _units(pair: Pair, counts: Counter[str]) -> Iterable[Finding]:
    """Find units whose place another unit of the same kind has taken."""
    known = {name for name, _, signs, words in _unit_forms(pair.language) if signs or words}
    stated = {n: k for n, k in units(pair.source, pair.source_language).items() if n in known}
    written = units(pair.target, pair.language)
    gone = {name: kind for name, kind in stated.items() if name not in written}
    counts["unit"] += len(stated)
    counts["unit found"] += len(stated) - len(gone)
    new = {kind for name, kind in written.items() if name not in stated}
    for name, kind in gone.items():
        if kind in new:
            yield Finding("unit", name, name)


@cache
def _cues(language: str) -> Mapping[str, tuple[str, ...]] | None:
    found: dict[str, Any] | None = table("negation").get(language)
    return found and {part: tuple(dict.fromkeys(map(fold, forms))) for part, forms in found.items()}


def cues(text: str, language: str) -> list[str] | None:
    """Return the words of a folded text that negate, in order; None where the language has no table."""
    parts = _cues(language)
    if parts is None:
        return None
    words, found = set(parts.get("words", ())), []
    begins, ends, within = parts.get("begins", ()), parts.get("ends", ()), parts.get("within", ())
    for word in fold(text).split():
        hit = word in words or word.startswith(begins) or word.endswith(ends) or any(part in word for part in within)
        if hit:
            found.append(word)
    return found


def _negation(pair: Pair, norms: Norms, limits: Limits, counts: Counter[str]) -> Iterable[Finding]:
    said, kept = cues(pair.source, pair.source_language), cues(pair.target, pair.language)
    if said is None or kept is None:
        counts[f"{NOT_CHECKED} negation"] += 1
        return
    counts["negation"] += bool(said)
    counts["negation found"] += bool(said and kept)
    if said and not kept and max(norms.cues.get(cue, norms.cues.get("", 1.0)) for cue in said) >= limits.cues:
        yield Finding("negation", said[0], said[0])


def log_ratio(pair: Pair) -> float:
    """Return log(target characters / source characters)."""
    return math.log(max(1, len(pair.target)) / max(1, len(pair.source)))


def _length(pair: Pair, norms: Norms, limits: Limits, counts: Counter[str]) -> Iterable[Finding]:
    counts["length"] += 1
    mean, deviation = norms.length
    # the shorter the text, the more its length may differ
    allowed = limits.deviations * deviation * math.sqrt(1 + 20 / max(1, len(pair.source)))
    if abs(log_ratio(pair) - mean) > allowed:
        yield Finding("length", "too short" if log_ratio(pair) < mean else "too long", "the whole text")


def _language(pair: Pair, verdict: Verdict | None, counts: Counter[str]) -> Iterable[Finding]:
    if copied(pair):
        yield Finding("language", "copied from the source", pair.language)
        return
    said = verdict(pair.target, pair.language) if verdict else NOT_CHECKED
    counts["language" if said != NOT_CHECKED else f"{NOT_CHECKED} language"] += 1
    if said not in ("ok", NOT_CHECKED):
        yield Finding("language", said, pair.language)


def copied(pair: Pair) -> bool:
    """Say whether most of the source's runs of letters stand in the translation."""
    source, target = closed(fold(pair.source)), closed(fold(pair.target))
    runs = {source[i : i + RUN] for i in range(len(source) - RUN + 1)}
    if not runs or len(runs) < MIN_COPIED:
        return source == target and source.isalpha()
    return sum(run in target for run in runs) > COPIED * len(runs)
