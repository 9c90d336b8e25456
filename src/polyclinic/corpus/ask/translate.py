"""Translated copies of documents, each audited, repaired where it fails, and dropped where repair fails.

A translation joins its source by `group`. Turns are translated one by one; the audit looks at the
whole document.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from polyclinic.corpus.ask.answers import Answer
from polyclinic.corpus.ask.audit import Audit, Finding, Limits, Norms, Pair, audit
from polyclinic.corpus.ask.chat import Chat, Refused
from polyclinic.corpus.ask.glossary import Glossary
from polyclinic.corpus.ask.prompting import named, translating
from polyclinic.corpus.ask.rewrite import tokens
from polyclinic.corpus.step import MADE, Outcome, outcome
from polyclinic.corpus_section import TranslateSection

Verdict = Callable[[str, str], str]
Translated = tuple[list[str], tuple[Answer, ...]]


class Rules(NamedTuple):
    """What a translation is held against."""

    glossary: Glossary
    norms: dict[tuple[str, str], Norms]
    verdict: Verdict
    section: TranslateSection

    def audit(self, pair: Pair) -> Audit:
        """Audit a translation by what is usual for its pair of languages."""
        norms = self.norms.get((pair.source_language, pair.language))
        return audit(pair, self.glossary, self.verdict, norms, Limits(reliability=self.section.reliability))

    def passes(self, found: Audit) -> bool:
        """Say whether nothing fails but as many terms as the recipe allows."""
        others = [f for f in found.findings if f.check != "term"]
        lacking = len(found.findings) - len(others)
        total = found.counts["term"]
        return not others and lacking <= (1 - self.section.min_term_recall) * total


class Job(NamedTuple):
    """One document to translate into one language."""

    row: int
    source_language: str
    language: str
    turns: tuple[str, ...]


class Made(NamedTuple):
    """What became of one translation: its turns, why it is dropped (None: it stays), and how it came about."""

    turns: Sequence[str]
    reason: str | None
    found: Audit | None
    repairs: int
    draft: Sequence[str] = ()  # as it was before the repairs
    said: tuple[Answer, ...] = ()


Translate = Callable[[Sequence[Job]], list[Made]]


def translate(
    batch: pa.RecordBatch, section: TranslateSection, translator: Callable[[], Translate], record: Path
) -> Outcome:
    """Add a translation of each chosen document for each language wanted, kept or dropped with its reason.

    Rows out and dropped are rows in and `made: translations`. Draft, last version and findings of
    each are added to the file `record`, a JSON line each.
    """
    jobs = _jobs(batch, section)
    if not jobs:
        return outcome(batch, [None] * batch.num_rows)
    made = translator()(jobs)
    _write(record, batch, jobs, made)
    counts: Counter[str] = Counter({f"{MADE}translations": len(jobs)})
    for job, one in zip(jobs, made, strict=True):
        counts.update(tokens("translate", one.said))
        counts["translate: repaired"] += bool(one.repairs) and one.reason is None
        for name, n in (one.found.counts if one.found else {}).items():
            counts[f"audit: {job.language} {name}"] += n
    reasons = [None] * batch.num_rows + [one.reason for one in made]
    return outcome(_with_copies(batch, jobs, made), reasons, +counts)


def _jobs(batch: pa.RecordBatch, section: TranslateSection) -> list[Job]:
    jobs = []
    columns = (batch.column(name).to_pylist() for name in ("source", "category", "language", "turns"))
    for row, (source, category, code, turns) in enumerate(zip(*columns, strict=True)):
        asked = ((source, section.sources), (category, section.categories), (code, section.languages))
        if any(wanted is not None and value not in wanted for value, wanted in asked):
            continue
        pieces = tuple(turn["content"] for turn in turns)
        if sum(map(len, pieces)) <= section.max_characters:
            jobs += [Job(row, code, to, pieces) for to in section.to if to != code]
    return jobs


def _write(record: Path, batch: pa.RecordBatch, jobs: Sequence[Job], made: Sequence[Made]) -> None:
    ids = batch.column("id").to_pylist()
    with record.open("a", encoding="utf-8") as file:
        for job, one in zip(jobs, made, strict=True):
            findings = [list(f) for f in one.found.findings] if one.found else []
            row = {
                "id": ids[job.row], "from": job.source_language, "to": job.language, "draft": list(one.draft),
                "last": list(one.turns), "repairs": one.repairs, "dropped": one.reason, "findings": findings,
            }  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _with_copies(batch: pa.RecordBatch, jobs: Sequence[Job], made: Sequence[Made]) -> pa.RecordBatch:
    """Return the batch with a copy behind it for each job; a translation that failed carries its source's text."""
    copies = batch.take(pa.array([job.row for job in jobs], pa.int64()))
    rows = zip(jobs, made, copies.column("turns").to_pylist(), copies.column("id").to_pylist(), strict=True)
    turns, ids = [], []
    for job, one, old, name in rows:
        pieces = one.turns or job.turns
        turns.append([{"role": t["role"], "content": p} for t, p in zip(old, pieces, strict=True)])
        ids.append(f"{name}#from-{job.source_language}")
    for column, values in (("turns", turns), ("id", ids), ("language", [job.language for job in jobs])):
        at = copies.schema.get_field_index(column)
        field = copies.schema.field(at)
        copies = copies.set_column(at, field, pa.array(values, field.type))
    both = pa.Table.from_batches([batch, copies]).combine_chunks()
    return both.to_batches()[0]


def by_chat(jobs: Sequence[Job], chat: Chat, rules: Rules) -> list[Made]:
    """Translate and repair by a model behind an endpoint."""
    return chat.run([partial(_by_chat, job, rules) for job in jobs])


async def _by_chat(job: Job, rules: Rules, chat: Chat) -> Made:
    said: list[Answer] = []
    try:
        turns = [await _ask(chat, _first_prompt(job, text, rules), said) for text in job.turns]
        draft, found, repairs = turns, rules.audit(pair_of(job, turns)), 0
        while not rules.passes(found) and repairs < rules.section.rounds:
            repairs += 1
            again = [await _ask(chat, p, said, repairs) if p else turns[i]
                     for i, p in enumerate(_repair_prompts(job, turns, rules))]  # fmt: skip
            better = rules.audit(pair_of(job, again))
            if improves(better, found):
                turns, found = again, better
    except Refused as err:
        return Made((), f"refused by the endpoint ({err})", None, 0, (), tuple(said))
    except _CutOff:
        return Made((), "translation was cut off", None, 0, (), tuple(said))
    return judged(turns, found, rules, repairs, draft, tuple(said))


class _CutOff(Exception):
    """A translation reached the limit of tokens."""


async def _ask(chat: Chat, prompt: str, said: list[Answer], seed: int | None = None) -> str:
    answer = await chat.ask([{"role": "user", "content": prompt}], seed)
    said.append(answer)
    if answer.finish == "length":
        raise _CutOff
    return answer.text


def pair_of(job: Job, turns: Sequence[str]) -> Pair:
    """Return the whole document beside its translation."""
    return Pair(job.source_language, job.language, "\n".join(job.turns), "\n".join(turns))


def judged(
    turns: Sequence[str], found: Audit, rules: Rules, repairs: int, draft: Sequence[str], said: tuple[Answer, ...] = ()
) -> Made:
    """Return a translation with its verdict: the first check that it fails."""
    reason = None if rules.passes(found) else f"translation fails: {found.findings[0].check}"
    return Made(turns, reason, found, repairs, draft, said)


def improves(new: Audit, old: Audit) -> bool:
    """Say whether fewer terms are lacking and no other check falls, or others fall away and no term is lost."""
    lacking = [sum(f.check == "term" for f in a.findings) for a in (new, old)]
    failing = [Counter(f.check for f in a.findings if f.check != "term") for a in (new, old)]
    worse = failing[0] - failing[1]
    return not worse and lacking[0] <= lacking[1] and (lacking[0] < lacking[1] or bool(failing[1] - failing[0]))


def _first_prompt(job: Job, text: str, rules: Rules) -> str:
    found = rules.glossary.find(text, job.source_language, job.language)
    listed = "\n".join(f"- {term.term} = {term.forms[0]}" for term in found)
    terms = translating()["terms"].format(list=listed) if found else ""
    return str(translating()["translate"].format(
        source_language=named(job.source_language), language=named(job.language), terms=terms, text=text))  # fmt: skip


def _repair_prompts(job: Job, turns: Sequence[str], rules: Rules) -> list[str | None]:
    """Return a prompt for each turn that fails by itself; where none does, for all of them by what the whole lacks."""
    alone = [
        rules.audit(Pair(job.source_language, job.language, *p)).findings for p in zip(job.turns, turns, strict=True)
    ]
    whole = rules.audit(pair_of(job, turns)).findings
    if not any(alone):
        alone = [whole] * len(turns)
    return [
        str(translating()["repair"].format(
            source_language=named(job.source_language), language=named(job.language),
            list="\n".join(map(fault, found)), text=text, draft=draft))
        if found else None
        for found, text, draft in zip(alone, job.turns, turns, strict=True)
    ]  # fmt: skip


def fault(found: Finding) -> str:
    """Say in words what a finding asks for."""
    if found.wanted.startswith("no "):
        return f"- it has {found.wanted.removeprefix('no ')}, which the text does not say"
    wanted = {
        "term": f"- the term {found.item} must be translated as {found.wanted}",
        "number": f"- the number {found.wanted} is missing or changed",
        "unit": f"- the unit {found.wanted} is missing or changed",
        "negation": f"- the negation ({found.wanted}) is lost",
        "length": f"- it is {found.item}: something was left out or added",
        "language": "- it is not in the wanted language",
    }
    return wanted[found.check]
