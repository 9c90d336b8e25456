"""Passages become questions and answers: two calls to a model, then checks that the answer rests on the passage.

The first call asks for a question that the passage answers, the second, with the passage as hidden
reference, for the answer. What fails a check is dropped with its reason; nothing is repaired by
guessing. The text of every chosen passage is sent to the endpoint.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from polyclinic.corpus.ask.answers import Answer
from polyclinic.corpus.ask.chat import Chat, Refused
from polyclinic.corpus.ask.grounding import cut, mentions, support, unsupported_numbers
from polyclinic.corpus.ask.prompting import Prompts, named, rewriting
from polyclinic.corpus.step import Outcome, outcome, texts
from polyclinic.corpus_section import RewriteSection

SUFFIX = "#qa"
STATED = "looks like"
Verdict = Callable[[str, str], str]


class Made(NamedTuple):
    """What became of one passage: a question and its answer, or a reason; and the answers it took."""

    question: str
    answer: str
    reason: str | None
    said: tuple[Answer, ...]
    cut: bool


class _Unfit(Exception):
    """An answer fails a check; the message is the reason."""


def rewrite(batch: pa.RecordBatch, chat: Callable[[], Chat], section: RewriteSection, verdict: Verdict) -> Outcome:
    """Replace each chosen passage by a question and its answer, or drop it.

    `verdict` is that of the identifier. Dialogues and what the section does not choose stay.
    """
    rows = chosen(batch, section.sources, section.categories)
    if not rows:
        return outcome(batch, [None] * batch.num_rows)
    codes, found = batch.column("language").to_pylist(), texts(batch)
    talks = [partial(_write, found[row], codes[row], section, verdict) for row in rows]
    made = dict(zip(rows, chat().run(talks), strict=True))
    counts: Counter[str] = Counter()
    for one in made.values():
        counts["rewrite: passage cut"] += one.cut
        counts.update(tokens("rewrite", one.said))
    counts[f"rewrite: written by {section.endpoint.model}"] += sum(one.reason is None for one in made.values())
    reasons = [made[row].reason if row in made else None for row in range(batch.num_rows)]
    return outcome(_replaced(batch, made), reasons, +counts)


def chosen(batch: pa.RecordBatch, sources: Sequence[str] | None, categories: Sequence[str] | None) -> list[int]:
    """Return the rows that are one plain text, of the named sources and categories (None: of all)."""
    roles = [[turn["role"] for turn in turns] for turns in batch.column("turns").to_pylist()]
    columns = zip(batch.column("source").to_pylist(), batch.column("category").to_pylist(), roles, strict=True)
    return [
        row for row, (source, category, said) in enumerate(columns)
        if said == ["text"] and (sources is None or source in sources)
        and (categories is None or category in categories)
    ]  # fmt: skip


def tokens(step: str, said: Sequence[Answer]) -> Counter[str]:
    """Count requests and their tokens, and the answers whose tokens the endpoint did not count."""
    counts: Counter[str] = Counter()
    for answer in said:
        counts[f"{step}: requests"] += 1
        counts[f"{step}: tokens sent"] += answer.asked or 0
        counts[f"{step}: tokens received"] += answer.told or 0
        counts[f"{step}: answers without a token count"] += answer.told is None
    return counts


def _replaced(batch: pa.RecordBatch, made: dict[int, Made]) -> pa.RecordBatch:
    """Return the batch with the turns and ids of what was made; what was not keeps its text."""
    ids, turns = batch.column("id").to_pylist(), batch.column("turns").to_pylist()
    for row, one in made.items():
        if one.reason is None:
            ids[row] += SUFFIX
            turns[row] = [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}]
    for name, values in (("id", ids), ("turns", turns)):
        at = batch.schema.get_field_index(name)
        field = batch.schema.field(at)
        batch = batch.set_column(at, field, pa.array(values, field.type))
    return batch


async def _write(passage: str, code: str, section: RewriteSection, verdict: Verdict, chat: Chat) -> Made:
    """Hold the two calls for one passage."""
    prompts = rewriting(code, section.prompts)
    part = cut(passage, section.passage_characters)
    filled = {"passage": part, "language": named(code)}
    said: list[Answer] = []
    asked = answered = ""
    reason = None
    try:
        asked = await _text(chat, prompts.question.format(**filled), "question", code, verdict, prompts, said)
        prompt = prompts.answer.format(**filled, question=asked)
        answered = await _text(chat, prompt, "answer", code, verdict, prompts, said)
        _check(answered, part, section)
    except _Unfit as err:
        reason = str(err)
    except Refused as err:
        reason = f"refused by the endpoint ({err})"
    return Made(asked, answered, reason, tuple(said), part != passage)


async def _text(
    chat: Chat, prompt: str, what: str, code: str, verdict: Verdict, prompts: Prompts, said: list[Answer]
) -> str:  # fmt: skip
    """Ask, and once more if the answer is in another language; raises _Unfit."""
    for seed in (None, 1):
        answer = await chat.ask([{"role": "user", "content": prompt}], seed)
        said.append(answer)
        if answer.finish == "length":
            raise _Unfit(f"{what} was cut off")
        if mentions(answer.text, prompts.mentions):
            raise _Unfit(f"{what} mentions the passage")
        if not verdict(answer.text, code).startswith(STATED):
            return answer.text
    raise _Unfit(f"{what} in another language")


def _check(answer: str, passage: str, section: RewriteSection) -> None:
    """Raise _Unfit unless an answer is long enough and rests on its passage."""
    if len(answer) < section.min_answer_characters:
        raise _Unfit("answer too short")
    if unsupported_numbers(answer, passage):
        raise _Unfit("answer has numbers that the passage lacks")
    if support(answer, passage) < section.min_support:
        raise _Unfit("answer does not rest on the passage")


def check_prompts(section: RewriteSection | None, codes: Sequence[str]) -> None:
    """Raise RecipeError before any work if a language has no prompts."""
    for code in codes if section else ():
        rewriting(code, section and section.prompts)
