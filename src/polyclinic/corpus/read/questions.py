"""Raw exam items into questions: options by letter, the answer a letter or several."""

from typing import Any

from polyclinic.corpus.read.faults import RecordError
from polyclinic.corpus.read.layouts import Shape, text_of
from polyclinic.corpus.read.rows import Row
from polyclinic.records import Question

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CORRECT = "correct or remove the item"


def to_question(row: Row, shape: Shape) -> Question:
    """Turn a raw exam item into a question; raises RecordError."""
    options = _options(row, shape)
    return Question(
        **shape.origin(row),
        split=shape.name(row, "split", "test"),
        question=shape.field(row, "question"),
        options=tuple(options.values()),
        answers=_answers(row, shape, list(options)),
        context=shape.field(row, "context", ""),
    )


def _options(row: Row, shape: Shape) -> dict[str, str]:
    """Return the options by letter, without those that are null; columns A, B, ... where there is no list."""
    given: Any = shape.value(row, "options")
    if given is None:
        given = {letter: value for letter in LETTERS if (value := shape.value(row, letter)) not in (None, "")} or None
    if isinstance(given, list) and len(given) <= len(LETTERS):
        given = dict(zip(LETTERS, given, strict=False))
    if not isinstance(given, dict):
        raise RecordError(row.where, "options are no list or object of options", CORRECT, "no options")
    kept = {k: str(v) if isinstance(v, int | float) else v for k, v in given.items() if v is not None}
    if len(kept) < 2:  # noqa: PLR2004
        raise RecordError(row.where, "needs at least two options", CORRECT, "fewer than two options")
    return {k: text_of(row, "an option", v) for k, v in kept.items()}


def _answers(row: Row, shape: Shape, letters: list[str]) -> tuple[int, ...]:
    """Return which options are right, as indices."""
    answer = shape.value(row, "answer")
    given = answer if isinstance(answer, list) else [answer]
    if not given or any(a not in letters for a in given):
        what = "the answer is not the letter of an option"
        raise RecordError(row.where, what, CORRECT, "answer outside the options")
    return tuple(dict.fromkeys(letters.index(str(a)) for a in given))
