"""Exam questions: those that a model is asked, and those that its training text must not hold."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from polyclinic.corpus import exams, readers, starter
from polyclinic.corpus.clean import asked
from polyclinic.corpus.executor import Task
from polyclinic.corpus.inputs import Input, plan
from polyclinic.corpus.normalise import clean_question
from polyclinic.corpus_section import CorpusSection, DecontaminateSection
from polyclinic.records import Question


def read(item: Input) -> Iterator[Question]:
    """Yield the questions of one input, normalised."""
    found: Iterable[Question] = (q for q in starter.questions() if asked(item.source, q))
    if item.path is not None:
        found = readers.read(item.path, item.source, readers.to_question)
    return map(clean_question, found)


def evaluated(section: CorpusSection, wanted: tuple[str, ...]) -> list[Question]:
    """Return the exam questions in the wanted languages, in source order, as many as the sources allow."""
    out: list[Question] = []
    taken: Counter[tuple[int, str]] = Counter()
    for item in plan(section, section.exams):
        cap = item.source.max_per_language
        for question in read(item):
            place = (item.number, question.language)
            if question.language in wanted and (cap is None or taken[place] < cap):
                taken[place] += 1
                out.append(question)
    return out


def task(section: CorpusSection, decontaminate: DecontaminateSection, code: str) -> Task:
    """Return the task that writes what training text is searched for: all questions, in any language.

    Of the exams of the recipe those in `splits` count, of the files in `against` all; caps do not.
    """
    inputs = [(item, True) for item in plan(section, section.exams)]
    inputs += [(item, False) for item in plan(section, decontaminate.against)]
    facts = [[item.sha256, item.source.model_dump()] for item, _ in inputs]
    key = {"exams": facts, "section": decontaminate.model_dump(), "code": code}
    return Task("exams", key, partial(_write, inputs, decontaminate))


def _write(inputs: list[tuple[Input, bool]], section: DecontaminateSection, folder: Path) -> Mapping[str, Any]:
    found = (q for item, own in inputs for q in read(item) if not own or q.split in section.splits)
    return exams.write(found, section, folder)
