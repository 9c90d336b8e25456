"""An exam in a language as it is scored: its questions, the pool its examples come from, what was left out."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from polyclinic.errors import DataError, UsageError
from polyclinic.evaluate.suite import hub, local, terms
from polyclinic.evaluate.suite.names import chosen
from polyclinic.evaluate.suite.rows import Record
from polyclinic.evaluate.suite.table import HERE, Exam
from polyclinic.evaluate.suite.terms import fold
from polyclinic.records import Question

TEST, OTHER, SCORED, TWICE = (
    "example: also in the scored split",
    "example: also in another exam",
    "example: a scored question or its translation",
    "example: another example again",
)


class Loaded(NamedTuple):
    """Questions to score and questions to show, disjoint; how many records were left out, by reason."""

    exam: Exam
    language: str
    questions: list[Question]
    pool: list[Question]
    left_out: Counter[str]

    @property
    def name(self) -> str:
        """Return the exam and its language in one word."""
        return f"{self.exam.name}_{self.language}"


def load_all(names: Sequence[str], languages: Iterable[str] | None = None, root: Path | None = None) -> list[Loaded]:
    """Load what names and languages choose, in the order of the table; see `names.chosen`."""
    return [load(exam, code, root) for exam, code in chosen(names, languages)]


def load(exam: Exam, code: str, root: Path | None = None, at: Path | None = None) -> Loaded:
    """Load one exam in one language.

    `root` is the folder of local exams (POLYCLINIC_DATA when left out), `at` a folder in place of the
    hub. Raises DataError where something is missing or wrong, UsageError for what lm-eval itself has.
    """
    left_out: Counter[str] = Counter()
    if exam.kind == "lm-eval":
        tasks = ",".join(exam.lm_eval_tasks(code))
        raise UsageError(f"{exam.name}_{code}", "is lm-eval's own", f"run lm_eval --tasks {tasks}")
    if exam.kind in HERE:
        reader = terms.records if exam.derived else local.records
        found = reader(exam, code, root, left_out)
    else:
        found = hub.records(exam, code, at, left_out)
    questions, pool = parted(exam, found, left_out)
    if not questions:
        where = exam.file or hub.source(exam)
        what = f"no question of {exam.name} in '{code}' in the split '{exam.split}'"
        raise DataError(where, what, "is the file whole, and is it the one that data/exams.yaml means?")
    return Loaded(exam, code, questions, pool, left_out)


def parted(exam: Exam, found: Sequence[Record], left_out: Counter[str]) -> tuple[list[Question], list[Question]]:
    """Return what is scored and what may be shown; nothing shown is scored, repeated or a translation of it."""
    scored = [record.question for record in found if record.question.split == exam.split]
    spare = [record for record in found if record.question.split in exam.shots]
    if not spare:
        return _carved(exam, scored)
    groups, texts = {q.group for q in scored}, {_said(q) for q in scored}
    pool: list[Question] = []
    shown: set[str] = set()
    for question, also_in, elsewhere in spare:
        said = _said(question)
        reason = (
            TEST if exam.split in also_in else
            OTHER if elsewhere else
            SCORED if question.group in groups or said in texts else
            TWICE if said in shown else ""
        )  # fmt: skip
        if reason:
            left_out[reason] += 1
        else:
            pool.append(question)
            shown.add(said)
    return scored, pool


def _carved(exam: Exam, scored: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Take `exam.pool` groups out of what is scored: the first by their hash that say nothing another says."""
    said: dict[str, set[str]] = defaultdict(set)
    for question in scored:
        said[_said(question)].add(question.group)
    shared = {group for groups in said.values() if len(groups) > 1 for group in groups}
    order = sorted({q.group for q in scored} - shared, key=lambda g: hashlib.sha256(g.encode()).digest())
    taken = set(order[: exam.pool])
    return [q for q in scored if q.group not in taken], [q for q in scored if q.group in taken]


def _said(question: Question) -> str:
    """Return what a question says, whatever its case, marks and order of options."""
    return "|".join([fold(question.context), fold(question.question), *sorted(map(fold, question.options))])
