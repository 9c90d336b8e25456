"""The audit of translations against real ones (TICO-19): term recall, faults found, false alarms.

    POLYCLINIC_DATA=... PYTHONPATH=src python benchmarks/audit.py [LANGUAGE ...]

What is usual is learned on one half of the documents; all figures are of the other half. Faults are
put into good translations: a term exchanged or left out, a number or unit changed, negation taken
away, the source copied, the end cut off. 200 a language, as evenly over the kinds as the text allows.
"""

import argparse
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from polyclinic.corpus.ask.audit import Limits, Norms, Pair, audit, cues, units
from polyclinic.corpus.ask.folding import fold, table
from polyclinic.corpus.ask.glossary import Entry, Glossary, Term
from polyclinic.corpus.ask.norms import learn
from polyclinic.corpus.identify.identify import BUILTIN, Identifier, detector
from polyclinic.families import fifty

LANGUAGES = ["ar", "ckb", "es", "fr", "ha", "hi", "ln", "ne", "pt", "ru", "rw", "sw", "zh"]
FAULTS = 200
GRID = tuple(n / 100 for n in range(20, 97))
TUNED, FOLDS = 0.04, 8
TRIED = 80  # faults a fold
STRANGERS = (0.1, 0.3, -1.0)
SIGN, SHORT = 2, 30  # characters of a unit's sign at most; of a sentence that is left alone
LINES = 10  # with numbers, to say that a document lies beside another
SHIFT = 3  # added to each digit of a changed number, modulo ten


def read(data: Path, language: str, source: str) -> dict[str, str]:
    with (data / "text" / f"{language}.jsonl").open(encoding="utf-8") as file:
        records = [r for r in map(json.loads, file) if r["source"] == source]
    return {r["parallel_id"]: r["text"] for r in records}


def halves(pairs: dict[str, Pair]) -> tuple[list[Pair], list[Pair]]:
    """Part the sentences in two halves that share no document."""
    tune, test = parts(list(pairs.values()), 2)
    return tune, test


def document(pair: Pair) -> str:
    """Return the document of a sentence; its name is source:document:number."""
    return pair.id.rsplit(":", 1)[0]


def beside(pairs: dict[str, Pair]) -> tuple[dict[str, Pair], list[str]]:
    """Leave out documents whose lines lie beside others: most lines with numbers share none. Returns their names."""
    shared: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs.values():
        stated = set(re.findall(r"\d{2,}", pair.source))
        if stated:
            shared[document(pair)].append(not stated.isdisjoint(re.findall(r"\d{2,}", pair.target)))
    apart = sorted(name for name, found in shared.items() if len(found) >= LINES and 2 * sum(found) < len(found))
    return {name: pair for name, pair in pairs.items() if document(pair) not in apart}, apart


def parts(pairs: Sequence[Pair], wanted: int) -> list[list[Pair]]:
    """Part sentences into lists of about one length that share no document, the largest document first."""
    sizes = Counter(map(document, pairs))
    out: list[list[str]] = [[] for _ in range(wanted)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(out, key=lambda part: sum(sizes[n] for n in part)).append(name)
    return [[pair for pair in pairs if document(pair) in set(part)] for part in out]


def without(text: str, form: str) -> str | None:
    """Take a form out of a text as it is written there."""
    pattern = re.compile(rf"(?<!\w){re.escape(form)}" if form.isascii() else re.escape(form), re.IGNORECASE)
    found = pattern.sub("", text)
    return found if found != text else None


class Faults:
    """Makes faults of each kind; None where a sentence does not allow it."""

    def __init__(self, glossary: Glossary, language: str, seed: int = 1) -> None:
        self._glossary, self._random = glossary, random.Random(f"{language}{seed}")  # noqa: S311
        self._terms = list(glossary.terms("en", language).values())

    def _written(self, pair: Pair) -> tuple[Term, str] | None:
        terms = self._glossary.find(pair.source, "en", pair.language)
        self._random.shuffle(terms)
        for term in terms:
            for form in term.forms:
                if len(form) > 1 and (rest := without(pair.target, form)) is not None:
                    return term, rest if fold(rest) else pair.target
        return None

    def term_left_out(self, pair: Pair) -> str | None:
        found = self._written(pair)
        return found and found[1]

    def term_exchanged(self, pair: Pair) -> str | None:
        found = self._written(pair)
        if found is None:
            return None
        other = self._random.choice([t for t in self._terms if t.term not in fold(pair.source)])
        for form in found[0].forms:
            pattern = re.compile(rf"(?<!\w){re.escape(form)}" if form.isascii() else re.escape(form), re.IGNORECASE)
            changed = pattern.sub(other.forms[0].replace("\\", ""), pair.target)
            if changed != pair.target:
                return changed
        return None

    def number_changed(self, pair: Pair) -> str | None:
        found = [m for m in re.finditer(r"\d+", pair.target) if not re.search(r"[^\W\d_]-?$", pair.target[: m.start()])]
        found = [m for m in found if m.group() in pair.source or not m.group().isascii()]
        if not found:
            return None
        m = self._random.choice(found)
        zero = {c: chr(ord(c) - int(c)) for c in m.group()}
        new = "".join(chr(ord(zero[c]) + (int(c) + SHIFT) % 10) for c in m.group())
        return pair.target[: m.start()] + new + pair.target[m.end() :]

    def unit_changed(self, pair: Pair) -> str | None:
        named = units(pair.target, pair.language)
        both = [n for n in units(pair.source, "en") if n in named]
        for name in both:
            unit = table("units")[name]
            others = [u for n, u in table("units").items() if u["kind"] == unit["kind"] and n not in named]
            forms = [*unit.get(pair.language, ()), *unit.get("all", ())]
            new = [f for u in others for f in [*u.get(pair.language, ()), *u.get("all", ())][:1]]
            if not new:
                continue
            changed = pair.target
            for form in sorted(forms, key=len, reverse=True):
                inside = r"\w*" if len(form) > SIGN and form not in "%" and pair.language != "zh" else ""
                ahead = r"(?<=\d)\s*" if form in unit.get("all", ()) else r"(?<!\w)" if pair.language != "zh" else ""
                changed = re.sub(f"{ahead}{re.escape(form)}{inside}", f" {self._random.choice(new)} ", changed)
            if changed != pair.target:
                return changed
        return None

    def negation_gone(self, pair: Pair) -> str | None:
        said, kept = cues(pair.source, "en"), cues(pair.target, pair.language)
        if not said or not kept:
            return None
        if pair.language == "zh":
            return re.sub("|".join(table("negation")["zh"]["within"]), "", pair.target)
        words = [w for w in pair.target.split(" ") if not cues(w, pair.language)]
        return " ".join(words)

    def source_copied(self, pair: Pair) -> str | None:
        return pair.source if len(pair.source) > SHORT else None

    def end_cut_off(self, pair: Pair) -> str | None:
        keep = self._random.uniform(0.3, 0.5)
        return pair.target[: int(len(pair.target) * keep)] if len(pair.target) > SHORT else None

    def kinds(self) -> dict[str, Callable[[Pair], str | None]]:
        names = ("term_exchanged", "term_left_out", "number_changed", "unit_changed", "negation_gone",
                 "source_copied", "end_cut_off")  # fmt: skip
        return {name.replace("_", " "): getattr(self, name) for name in names}


def _made(pairs: Sequence[Pair], make: Callable[[Pair], str | None]) -> Iterator[Pair]:
    return (pair._replace(target=target) for pair in pairs if (target := make(pair)))


def faulty(pairs: Sequence[Pair], faults: Faults, wanted: int = FAULTS) -> list[tuple[str, Pair]]:
    """Return sentences with one fault each, the kinds in turn."""
    order = list(pairs)
    random.Random(7).shuffle(order)  # noqa: S311
    able = {kind: _made(order, make) for kind, make in faults.kinds().items()}
    out: list[tuple[str, Pair]] = []
    while len(out) < wanted and able:  # a sentence may bear faults of several kinds
        for kind in list(able):
            made = next(able[kind], None)
            if made is None:
                del able[kind]
            elif len(out) < wanted:
                out.append((kind, made))
    return out


def chosen(glossary: Glossary, tune: Sequence[Pair], limits: Limits) -> Limits:
    """Choose limits by the half that is learned from: of several, those that find the most faults.

    Each with the least reliability whose false alarms stay at TUNED, learned without some of the
    documents and tried on those.
    """
    tried_on = parts(tune, FOLDS)
    learned = [learn([p for other in tried_on if other is not part for p in other], glossary) for part in tried_on]
    faults = [faulty(part, Faults(glossary, tune[0].language, seed=2), TRIED) for part in tried_on]
    found = []
    for strangers in STRANGERS:
        tried = limits._replace(strangers=strangers)
        both = zip(learned, tried_on, strict=True)
        worst = [[alarm(pair, glossary, norms, tried) for pair in part] for norms, part in both]
        fitting = [r for r in GRID if usual_alarms(worst, r) <= TUNED]
        tried = tried._replace(reliability=fitting[0] if fitting else 1.01)
        marks = [alarm(p, glossary, norms, tried) for norms, made in zip(learned, faults, strict=True) for _, p in made]
        found.append((bool(fitting), sum(m >= tried.reliability for m in marks), tried))
    return max(found, key=lambda one: one[:2])[2]


def usual_alarms(worst: Sequence[Sequence[float]], reliability: float) -> float:
    """Return the share of alarms without the part that has most, so that no one document's style decides."""
    found = sorted(((sum(w >= reliability for w in part), len(part)) for part in worst), key=lambda n: n[0] / n[1])
    return sum(n for n, _ in found[:-1]) / sum(size for _, size in found[:-1])


def alarm(pair: Pair, glossary: Glossary, norms: Norms, limits: Limits) -> float:
    """Return the reliability up to which a good sentence raises an alarm; 2: at any, -1: at none."""
    found = audit(pair, glossary, None, norms, limits._replace(reliability=0.0)).findings
    missing = [f for f in found if f.check == "term" and not f.wanted.startswith("no ")]
    if len(missing) < len(found):
        return 2.0
    return max((norms.terms.get(f.item, norms.others) for f in missing), default=-1.0)


def measure(
    glossary: Glossary, tune: Sequence[Pair], test: Sequence[Pair], identifier: Identifier, limits: Limits
) -> dict[str, object]:
    language = test[0].language
    limits = chosen(glossary, tune, limits)
    norms: Norms = learn(tune, glossary)
    clean: Counter[str] = Counter()
    alarms = 0
    for pair in test:
        found = audit(pair, glossary, identifier.verdict, norms, limits)
        clean += found.counts
        alarms += bool(found.findings)
    hits: dict[str, list[bool]] = defaultdict(list)
    for kind, pair in faulty(test, Faults(glossary, language)):
        hits[kind].append(bool(audit(pair, glossary, identifier.verdict, norms, limits).findings))
    everything = [hit for found in hits.values() for hit in found]
    return {
        "sentences": len(test),
        "reliability": limits.reliability,
        "strangers": limits.strangers,
        "terms": clean["term"],
        "recall": clean["term found"] / max(1, clean["term"]),
        "inflected": clean["term found inflected"] / max(1, clean["term"]),
        "found": sum(everything) / len(everything),
        "alarms": alarms / len(test),
        "by_check": {k.removeprefix("failed "): v / len(test) for k, v in clean.items() if k.startswith("failed")},
        "kinds": {kind: (sum(found), len(found)) for kind, found in hits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("languages", nargs="*", default=LANGUAGES)
    arguments = parser.parse_args()
    data = Path(os.environ["POLYCLINIC_DATA"])
    english, terms = read(data, "en", "tico19"), read(data, "en", "tico19-terms")
    identifier = Identifier(detector(BUILTIN, fifty()))
    for language in arguments.languages:
        entries = read(data, language, "tico19-terms").items()
        glossary = Glossary(Entry("en", terms[k], language, form) for k, form in entries if k in terms)
        found = {k: Pair("en", language, english[k], t, k) for k, t in read(data, language, "tico19").items()}
        found, apart = beside(found)
        tune, test = halves(found)
        row = measure(glossary, tune, test, identifier, Limits())
        row["apart"] = apart
        print(language, json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
