"""A question, its examples and a protocol become the document that lm-eval reads.

The document holds the whole prompt, so every engine is sent the same bytes.
"""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from polyclinic.errors import DataError
from polyclinic.evaluate.protocol import GENERATED, Protocol
from polyclinic.prompts import words
from polyclinic.records import Question


def document(
    question: Question, shots: Sequence[Question], protocol: Protocol, several: bool = False
) -> dict[str, Any]:
    """Return what lm-eval reads of one question; `several`: its exam has questions with several right answers."""
    listed = protocol.scoring != "option"
    texts = [block(shot, protocol, listed) + " " + answer(shot, protocol, several) for shot in shots]
    pieces = [instruction(question, protocol), *texts, block(question, protocol, listed)]
    choices, gold = scored(question, protocol, several)
    return {
        "id": question.id,
        "language": question.language,
        "group": question.group,
        "prompt": "\n\n".join(piece for piece in pieces if piece),
        "choices": choices,
        "gold": gold,
        "options": len(question.options),
        "answers": list(question.answers),
    }


def scored(question: Question, protocol: Protocol, several: bool) -> tuple[list[str], Any]:
    """Return the continuations that are compared, and which is right; of a written answer the right letters."""
    letters = letters_of(question)
    if protocol.scoring in GENERATED:
        return [], ", ".join(letters[a] for a in question.answers)
    if protocol.scoring == "option":
        return list(question.options), question.answers[0]
    if not several:
        return letters, question.answers[0]
    sets = subsets(len(question.options))
    return [", ".join(letters[i] for i in one) + "\n" for one in sets], sets.index(tuple(sorted(question.answers)))


def subsets(options: int) -> list[tuple[int, ...]]:
    """Return every non-empty set of options, smaller ones first."""
    return [one for size in range(1, options + 1) for one in itertools.combinations(range(options), size)]


def draw(pool: Sequence[Question], question: Question, protocol: Protocol) -> list[Question]:
    """Return the examples of a question; none of them is the question or a translation of it.

    They are the same for a whole exam and language, unless the paper's rule is asked for.
    """
    others = [q for q in pool if q.group != question.group and q.id != question.id]
    place = question.id if protocol.shots_from_test else ""
    order = random.Random(f"{protocol.seed} {question.source} {question.language} {place}")  # noqa: S311 - no secret
    return order.sample(others, min(protocol.shots, len(others)))


def block(question: Question, protocol: Protocol, listed: bool) -> str:
    """Return one question up to where its answer begins, its options listed or not."""
    word = literals(question.language)
    lines = [question.context] if question.context else []
    lines.append(f"{word['question']}: {question.question}")
    if listed:
        lines += [f"{a}. {b}" for a, b in zip(letters_of(question), question.options, strict=True)]
    return "\n".join([*lines, f"{word['answer']}:"])


def answer(question: Question, protocol: Protocol, several: bool) -> str:
    """Return what stands behind an example."""
    choices, gold = scored(question, protocol, several)
    return (choices[gold] if choices else str(gold)).strip()


def instruction(question: Question, protocol: Protocol) -> str:
    """Return what the model is told before the first question."""
    return ""


def letters_of(question: Question) -> list[str]:
    """Return what a question's options are called."""
    return list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(question.options)])


def literals(code: str) -> dict[str, str]:
    """Return a language's words; raises DataError naming the file where there are none."""
    found = words().get(code)
    if found is None:
        raise DataError("data/words.csv", f"no exam words for language '{code}'", "add a row with its words")
    return found
