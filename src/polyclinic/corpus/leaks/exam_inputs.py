"""Exam questions: those that a model is asked, and those that its training text must not hold."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from polyclinic.corpus import starter
from polyclinic.corpus.clean import asked
from polyclinic.corpus.engine.inputs import Input, Plan
from polyclinic.corpus.leaks import exams
from polyclinic.corpus.normalise import clean_question
from polyclinic.corpus.privacy import privacy
from polyclinic.corpus.read.faults import Faults
from polyclinic.corpus.read.questions import to_question
from polyclinic.corpus.read.read import numbered
from polyclinic.corpus_section import DecontaminateSection, PrivacySection
from polyclinic.records import Question


def questions(item: Input, faults: Faults) -> Iterator[Question]:
    """Yield the questions of one input, normalised; what cannot be read goes to `faults`."""
    found: Iterable[Question] = (q for q in starter.questions() if asked(item.source, q))
    if item.path is not None:
        found = (q for _, q in numbered(item.path, item.source, to_question, faults, item.file, item.part))
    return map(clean_question, found)


def evaluated(
    planned: Plan, wanted: tuple[str, ...], faults: Faults, rule: PrivacySection, counts: Counter[str]
) -> list[Question]:
    """Return the exam questions in the wanted languages, in source order, as many as the sources allow.

    Counts what is hidden in them.
    """
    out: list[Question] = []
    taken: Counter[tuple[int, str]] = Counter()
    for item in planned.exams:
        cap = item.source.max_per_language
        for question in questions(item, faults):
            place = (item.number, question.language)
            if question.language in wanted and (cap is None or taken[place] < cap):
                taken[place] += 1
                out += privacy.question(question, rule, item.file, counts)
    return out


def write(
    planned: Plan, section: DecontaminateSection, folder: Path, strict: bool, rule: PrivacySection
) -> Mapping[str, Any]:
    """Write what training text is searched for: all questions, in any language.

    Of the exams of the recipe those in `splits` count, of the files in `against` all; caps do not. What
    names a person is hidden as it is in the text that is searched, and neither drops nor refuses a question.
    """
    faults = Faults(strict)  # those of the recipe's exams are counted where they are collected
    hiding = rule if rule.mode == "off" else rule.model_copy(update={"mode": "redact"})
    own = (q for item in planned.exams for q in questions(item, faults) if q.split in section.splits)
    found = [*own, *(q for item in planned.against for q in questions(item, faults))]
    hidden = (shown for q in found for shown in privacy.question(q, hiding, "", Counter()))
    return exams.write(hidden, section, folder)
