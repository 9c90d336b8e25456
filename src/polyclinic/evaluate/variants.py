"""Prompts that ask the same in another form: what the answer should not depend on.

Three kinds: the layout of the page, the wording of the instruction (English, as there is one native
wording a language), and slips of the hand in the question and its context. The first variant of each
kind is the plain one. Options and their letters are never touched, so scores compare.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

from polyclinic.errors import UsageError
from polyclinic.evaluate.exam_layouts import equivalent_layouts
from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.prompting import ENGLISH, document
from polyclinic.evaluate.protocol import Protocol
from polyclinic.evaluate.typos import LEVELS, with_typos
from polyclinic.records import Question

Kind = Literal["layout", "paraphrase", "typo"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Variant(NamedTuple):
    """One form of a question; `number` 0 is the plain one, of typos it is the level."""

    kind: Kind
    number: int
    question: Question
    layout: str | None = None  # None: the protocol's
    told: str | None = None  # the instruction; None: the protocol's

    def document(self, shots: Sequence[Question], protocol: Protocol, several: bool = False) -> dict[str, Any] | None:
        """Return the document of this variant, as `prompting.document` does."""
        asked = protocol if self.layout is None else replace(protocol, layout=self.layout)
        return document(self.question, shots, asked, several, self.told)


def variants(question: Question, kind: Kind, n: int, seed: int, several: bool = False) -> list[Variant]:
    """Return up to `n` forms of a question, the plain one first; the same for the same seed.

    There are as many as there are layouts, wordings and levels. Raises UsageError for an unknown kind.
    """
    if kind == "layout":
        return [Variant(kind, i, question, layout=name) for i, name in enumerate(equivalent_layouts()[:n])]
    if kind == "paraphrase":
        return [Variant(kind, i, question, told=told) for i, told in enumerate(_instructions(several)[:n])]
    if kind == "typo":
        return [Variant(kind, level, mistyped(question, level, seed)) for level in range(min(n, LEVELS + 1))]
    raise UsageError("variants", f"unknown kind '{kind}'", f"there are {', '.join(KINDS)}")


def _instructions(several: bool) -> list[str]:
    """Return the English instruction and its paraphrases; where several options may be right there is one."""
    words = literals(ENGLISH)
    return [words.instruction_several] if several else [words.instruction, *words.paraphrases]


def mistyped(question: Question, level: int, seed: int) -> Question:
    """Return a question with the slips of a level in its text and context; options stay as they are."""
    own = f"{seed} {question.source} {question.language} {question.id}"
    asked = with_typos(question.question, level, own)
    return replace(question, question=asked, context=with_typos(question.context, level, f"{own} context"))
