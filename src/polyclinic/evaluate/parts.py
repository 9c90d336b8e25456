"""What is asked: each exam in each language, with the questions its examples may come from."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from polyclinic.evaluate.tasks import task_name
from polyclinic.records import Question
from polyclinic.runs import digest

TEST = "test"


@dataclass(frozen=True)
class Part:
    """One exam in one language; `pool` shares no question with what is asked."""

    exam: str
    language: str
    questions: tuple[Question, ...]
    pool: tuple[Question, ...] = ()
    several: bool = False  # questions of this exam may have several right answers
    derived: bool = False  # made for lack of an exam
    licence: str = ""
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Return the name under which it is asked."""
        return task_name(self.exam, self.language)


def of_corpus(questions: Iterable[Question]) -> list[Part]:
    """Return the exams of a built corpus: their test split, or all of an exam that has none."""
    groups: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.source, question.language].append(question)
    several = {exam for (exam, _), group in groups.items() if any(len(q.answers) > 1 for q in group)}
    return [_part(exam, code, group, exam in several) for (exam, code), group in groups.items()]


def _part(exam: str, code: str, group: Sequence[Question], several: bool) -> Part:
    asked = [q for q in group if q.split == TEST] or list(group)
    inside = {q.id for q in asked}
    pool = tuple(q for q in group if q.id not in inside)
    return Part(exam, code, tuple(asked), pool, several, licence=group[0].licence)


def of_suite(names: Sequence[str], languages: Sequence[str] | None) -> list[Part]:
    """Return the exams of the suite by their names, in some languages; see `suite.names.chosen`."""
    from polyclinic.evaluate.suite.loading import load_all

    return [
        Part(
            one.exam.name,
            one.language,
            tuple(one.questions),
            tuple(one.pool),
            one.exam.several,
            one.exam.derived,
            one.exam.licence,
            dict(sorted(one.left_out.items())),
        )
        for one in (load_all(names, languages) if names else ())
    ]


def key(parts: Iterable[Part]) -> str:
    """Return a digest of all that is asked and shown."""
    return digest([[p.task, p.several, p.derived, *(q.row() for q in (*p.questions, *p.pool))] for p in parts])


def limited(parts: Iterable[Part], most: int | None) -> list[Part]:
    """Return the parts with the first questions of each."""
    return [replace(part, questions=part.questions[:most]) for part in parts]
