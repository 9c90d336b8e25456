"""A question, its examples and a protocol become the document that lm-eval reads.

The document holds the whole prompt, so every engine is sent the same bytes. The words around the
question are those of its language, whatever language the instruction is in: what the instruction
does can then be measured alone.
"""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from polyclinic.errors import DataError
from polyclinic.evaluate.exam_layouts import layout
from polyclinic.evaluate.literals import ASCII_LETTERS, literals, words_file
from polyclinic.evaluate.protocol import GENERATED, Protocol
from polyclinic.records import Question

ENGLISH = "en"


def document(
    question: Question,
    shots: Sequence[Question],
    protocol: Protocol,
    several: bool = False,
    told: str | None = None,
) -> dict[str, Any] | None:
    """Return what lm-eval reads of one question, or None where it is longer than the protocol allows.

    `several`: its exam has questions with several right answers; `told`: an instruction in other words.
    """
    prompt = whole_prompt(question, shots, protocol, several, told)
    if protocol.most_characters is not None and len(prompt) > protocol.most_characters:
        return None
    choices, gold = scored(question, protocol, several)
    return {
        "id": question.id,
        "language": question.language,
        "group": question.group,
        "prompt": prompt,
        "choices": choices,
        "gold": gold,
        "options": len(question.options),
        "answers": list(counted_answers(question, protocol)),
    }


def whole_prompt(
    question: Question, shots: Sequence[Question], protocol: Protocol, several: bool, told: str | None
) -> str:
    """Return instruction, examples as far as they fit, and the question."""
    form = layout(protocol.layout)
    says = instruction(question.language, protocol, several) if told is None else told
    last = block(question, protocol, says)
    first = [says] if says and form.instruction == "once" else []
    examples: list[str] = []
    for shot in shots:
        text = example(shot, protocol, several, says)
        whole = form.joins.join([*first, *examples, text, last])
        # The paper's rule: an example is added while the prompt stays under the cap, a later one may still fit.
        if protocol.most_characters is None or len(whole) < protocol.most_characters:
            examples.append(text)
    return form.joins.join([*first, *examples, last])


def scored(question: Question, protocol: Protocol, several: bool) -> tuple[list[str], Any]:
    """Return the continuations that are compared, and which is right; of a written answer the right letters."""
    letters = letters_of(question, protocol)
    answers = counted_answers(question, protocol)
    if protocol.scoring in GENERATED:
        return [], ", ".join(letters[a] for a in answers)
    if protocol.scoring == "option":
        return list(question.options), answers[0]
    if not several:
        return letters, answers[0]
    sets = subsets(len(question.options))
    return [", ".join(letters[i] for i in one) + "\n" for one in sets], sets.index(tuple(sorted(answers)))


def counted_answers(question: Question, protocol: Protocol) -> tuple[int, ...]:
    """Return the right options as the protocol counts them: of several the paper counts the first."""
    return question.answers[:1] if protocol.first_letter else question.answers


def asks_for_sets(several: bool, protocol: Protocol) -> bool:
    """Say whether an answer is a set of options: not where single texts are scored or only the first answer counts."""
    return several and protocol.scoring != "option" and not protocol.first_letter


def asked(
    question: Question, scored: Sequence[Question], pool: Sequence[Question], protocol: Protocol, several: bool
) -> dict[str, Any] | None:
    """Return the document of a question with its examples, drawn from where the protocol says."""
    examples = draw(scored if protocol.shots_from_test else pool, question, protocol)
    return document(question, examples, protocol, asks_for_sets(several, protocol))


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


def example(shot: Question, protocol: Protocol, several: bool, says: str) -> str:
    """Return a question with its answer."""
    head = block(shot, protocol, says, answered=True)
    return head + ("" if head.endswith("Assistant:") else " ") + answer(shot, protocol, several)


def block(question: Question, protocol: Protocol, says: str, answered: bool = False) -> str:
    """Return one question up to where its answer begins.

    Options whose full text is scored are not listed. Where the model is to reason first, the line that
    asks for it stands in place of the answer's; an example has no reasoning (`answered`).
    """
    form, words = layout(protocol.layout), literals(question.language)
    listed = protocol.scoring != "option"
    pairs = zip(letters_of(question, protocol), question.options, strict=True) if listed else ()
    reasons = protocol.scoring == "chain" and not answered
    text = form.block(
        {
            "instruction": says,
            "context": question.context,
            "asks": words.question,
            "question": question.question,
            "lists": words.options,
            "options": form.between.join(form.option.format(letter=a, option=b) for a, b in pairs),
            "answers": "" if reasons else words.answer,
        }
    )
    return _with_reasoning(text, question.language, protocol) if reasons else text


def _with_reasoning(text: str, code: str, protocol: Protocol) -> str:
    """Put the line that asks for reasoning at the end, before the head of a reply where there is one."""
    asked = literals(ENGLISH if protocol.instruction == "english" else code).chain
    line = asked.format(answer=literals(code).answer)
    head = "\nAssistant:"
    return text.removesuffix(head) + f"\n{line}{head}" if text.endswith(head) else f"{text}\n{line}\n"


def answer(question: Question, protocol: Protocol, several: bool) -> str:
    """Return what stands behind an example."""
    choices, gold = scored(question, protocol, several)
    letters = (choices[gold] if choices else str(gold)).strip()
    form = layout(protocol.layout)
    marked = form.option.format(letter=letters, option="").strip()
    return form.picked.format(letters=letters, stated=literals(question.language).states.format(answer=marked))


def instruction(code: str, protocol: Protocol, several: bool) -> str:
    """Return what the model is told about questions in a language; nothing where the options are not listed."""
    if protocol.instruction == "none" or protocol.scoring == "option":
        return ""
    words = literals(ENGLISH if protocol.instruction == "english" else code)
    return words.instruction_several if several else words.instruction


def letters_of(question: Question, protocol: Protocol) -> list[str]:
    """Return what a question's options are called; raises DataError where there are more options than letters."""
    native = layout(protocol.layout).native_letters
    own = native is None or question.language in native
    letters = literals(question.language).letters if own else ASCII_LETTERS
    if len(question.options) > len(letters):
        what = f"{question.id} has {len(question.options)} options, there are {len(letters)} letters"
        raise DataError(words_file(question.language), what, "add letters, or leave the question out")
    return list(letters[: len(question.options)])
