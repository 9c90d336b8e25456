"""One input to clean documents: the steps that look at one document at a time.

A pure function of the input and the section, apart from the files it writes: `documents.parquet`,
`marks.parquet` (what the whole corpus decides by, row by row), `dropped.parquet` (examples of what
went, and why) and `quarantine.jsonl` (where a record could not be read).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from polyclinic.corpus import starter
from polyclinic.corpus.ask.models import model_steps
from polyclinic.corpus.dedup import dedup
from polyclinic.corpus.engine.inputs import Input
from polyclinic.corpus.identify.identify import identifier, identify
from polyclinic.corpus.leaks import decontaminate
from polyclinic.corpus.normalise import normalise
from polyclinic.corpus.privacy import privacy
from polyclinic.corpus.quality import quality
from polyclinic.corpus.read import identity, licence, read
from polyclinic.corpus.read.faults import QUARANTINE, Faults
from polyclinic.corpus.step import MARK, REASON, Outcome, Step, made, outcome, texts
from polyclinic.corpus.tables import DOCUMENTS, DROPPED, MARKS, Writer
from polyclinic.corpus_section import CorpusSection, PrivacySection, Source
from polyclinic.errors import PolyclinicError
from polyclinic.records import Document, Question

DOCUMENTS_FILE, MARKS_FILE, DROPPED_FILE = "documents.parquet", "marks.parquet", "dropped.parquet"
DROPS, DROPS_FILE = "drops", "drops.json"  # in the facts of a shard and of a corpus: language -> reason -> rows
EXAMPLES = 20  # kept of each reason and language in a shard
EXCERPT = 300  # characters of each


class Cleaning(NamedTuple):
    """What decides what becomes of an input."""

    input: Input
    section: CorpusSection
    wanted: tuple[str, ...]
    exams: Path | None = None  # what `exams.write` wrote: the items that training text must not hold
    answers: Path | None = None  # where a language model's answers are kept


def steps(cleaning: Cleaning, folder: Path) -> list[tuple[str, Step]]:
    """Return the steps a section asks for, by name, in their order; one may write beside the shard."""
    section, wanted = cleaning.section, cleaning.wanted
    drop = section.check_language == "drop"
    found: list[tuple[str, Step]] = [
        ("choose", partial(choose, wanted=frozenset(wanted))),
        ("licence", partial(licence.apply, policy=section.licences)),
        ("normalise", normalise),
        ("privacy", partial(privacy.privacy, rule=section.privacy, file=cleaning.input.file)),
    ]
    if section.check_language != "off":
        found.append(("identify", partial(identify, identifier=identifier(section.identifier, wanted), drop=drop)))
    found += model_steps(section, wanted, cleaning.answers, folder)
    if section.quality:
        found.append(("quality", partial(quality.mark, section=section.quality, root=section.root)))
    if section.decontaminate and cleaning.exams:
        search = partial(decontaminate.mark, folder=cleaning.exams, section=section.decontaminate)
        found.append(("decontaminate", search))
    found.append(("name", identity.mark))
    if section.dedup:
        found.append(("dedup", partial(dedup.mark, section=section.dedup)))
    return found


def choose(batch: pa.RecordBatch, wanted: frozenset[str]) -> Outcome:
    """Drop what is in a language the recipe does not name."""
    codes = batch.column("language").to_pylist()
    return outcome(batch, [None if code in wanted else "language not in the recipe" for code in codes])


def clean(cleaning: Cleaning, folder: Path) -> Mapping[str, Any]:
    """Read and clean one input into a folder; returns rows in, rows out and counts."""
    todo = steps(cleaning, folder)
    counts: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    faults = Faults(strict=cleaning.section.on_error == "fail")
    rows_in = 0
    flow: dict[str, Any] = {name: {"rows_in": 0, "rows_out": 0, "counts": Counter()} for name, _ in todo}
    with (
        Writer(folder / DOCUMENTS_FILE) as documents,
        Writer(folder / MARKS_FILE) as marks,
        Writer(folder / DROPPED_FILE) as dropped,
    ):
        dropped.write(pa.RecordBatch.from_pylist([], schema=DROPPED))
        for batch in _batches(cleaning.input, faults):
            rows_in += batch.num_rows
            for name, step in todo:
                result = _done(name, step, batch, cleaning.input)
                if batch.num_rows + made(result.counts) != result.batch.num_rows + result.dropped.num_rows:
                    raise PolyclinicError(name, "rows went uncounted", "report this")
                dropped.write(examples(result.dropped, shown, cleaning.section.privacy))
                counts += result.counts
                flow[name]["rows_in"] += batch.num_rows
                flow[name]["rows_out"] += result.batch.num_rows
                flow[name]["counts"] += result.counts
                batch = result.batch
            documents.write(batch.select(DOCUMENTS.names))
            marks.write(batch.select([n for n in batch.schema.names if n in MARKS or n.startswith(MARK)]))
    (folder / QUARANTINE).write_bytes(faults.lines())
    counts += faults.counts()
    rows_in += len(faults)
    facts = {"rows_in": rows_in, "rows_out": documents.rows, "counts": dict(sorted(counts.items()))}
    return {**facts, "steps": [{"step": name, **one} for name, one in flow.items()], DROPS: drops(shown)}


def _done(name: str, step: Step, batch: pa.RecordBatch, item: Input) -> Outcome:
    """Do a step; a fault of its code is named by step and shard, never by its message, which may hold text."""
    try:
        return step(batch)
    except (PolyclinicError, OSError):
        raise
    except Exception as err:
        if os.environ.get("POLYCLINIC_DEBUG"):
            raise
        what, try_ = f"{type(err).__name__} in step {name}", "a fault of ours: POLYCLINIC_DEBUG=1 shows where"
        raise PolyclinicError(item.name, what, try_) from None


def drops(shown: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return how many rows of each language were dropped for each reason, in the order of both."""
    out: dict[str, dict[str, int]] = {}
    for reason, code in sorted(shown):
        out.setdefault(code, {})[reason] = shown[reason, code]
    return {code: out[code] for code in sorted(out)}


def examples(
    dropped: pa.RecordBatch, shown: Counter[tuple[str, str]], rule: PrivacySection | None = None
) -> pa.RecordBatch:
    """Return the first rows of each reason and language, with the beginning of their text.

    With a rule what points at a person is hidden: a step before privacy may have dropped the row.
    """
    rows = []
    columns = [dropped.column(name).to_pylist() for name in ("id", "language", "source", REASON)]
    for row in zip(*columns, texts(dropped), strict=True):
        shown[row[3], row[1]] += 1
        if shown[row[3], row[1]] <= EXAMPLES:
            seen = privacy.example(row, rule) if rule else row
            rows.append(dict(zip(DROPPED.names, (*seen[:4], seen[4][:EXCERPT]), strict=True)))
    return pa.RecordBatch.from_pylist(rows, schema=DROPPED)


def _batches(item: Input, faults: Faults) -> Iterator[pa.RecordBatch]:
    """Yield an input's documents; one empty batch where there are none, so that the columns are known."""
    found = False
    for batch in _read(item, faults):
        found = True
        yield batch
    if not found:
        yield read.batch([], [])


def _read(item: Input, faults: Faults) -> Iterable[pa.RecordBatch]:
    if item.path is not None:
        return read.documents(item.path, item.source, faults, item.file, item.part)
    chosen = [d for d in starter.documents() if asked(item.source, d)]
    return [read.batch(chosen, list(range(1, len(chosen) + 1)))]


def asked(source: Source, record: Document | Question) -> bool:
    """Say whether a source's filters keep a record of the starter corpus."""
    only = read.languages_of(source)
    named = not source.names or record.source in source.names
    return named and (not only or record.language in only) and (not source.splits or record.split in source.splits)
