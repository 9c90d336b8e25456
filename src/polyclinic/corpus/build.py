"""Build a corpus: clean shard by shard, decide over all, select shard by shard; then card and manifest.

The shard list depends on the inputs and never on the number of workers, and whatever looks at more
than one document follows the order of the plan, so output bytes do not depend on workers either.
Rows in = rows out + drops, or the build fails.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from polyclinic.corpus.card.card import write_card
from polyclinic.corpus.card.measures import medians
from polyclinic.corpus.clean import DOCUMENTS_FILE, DROPPED_FILE, DROPS, DROPS_FILE, drops
from polyclinic.corpus.engine import executor, phases
from polyclinic.corpus.engine.engines import Inline, engine
from polyclinic.corpus.engine.executor import space_named
from polyclinic.corpus.engine.inputs import PLAN, Input, Plan, plan_all, wanted_languages, written
from polyclinic.corpus.engine.pace import Pace
from polyclinic.corpus.leaks.exam_inputs import evaluated
from polyclinic.corpus.leaks.leaks import REPORTS
from polyclinic.corpus.read.faults import QUARANTINE, Faults, gather
from polyclinic.corpus.step import dropped, made
from polyclinic.corpus.tables import QUESTIONS, read_rows, write_table
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import PolyclinicError
from polyclinic.progress import Progress
from polyclinic.records import Document
from polyclinic.runs import SCRATCH, write_json

SHARDS = ".shards"  # of a run: kept so that a changed setting redoes only what it touches
Facts = list[dict[str, Any]]


def build(
    section: CorpusSection, folder: Path, progress: Progress, shards: Path | None = None, planned: Plan | None = None
) -> dict[str, Any]:
    """Build the corpus into an empty folder; returns the facts for its manifest.

    Finished shards stay below `shards`, so that what they do not depend on can change without them.
    """
    place = shards or folder / SCRATCH / "shards"
    planned = planned or plan_all(section)
    place.mkdir(parents=True, exist_ok=True)
    _empty(folder)
    with space_named(folder):
        write_json(place / PLAN, written(section, planned))
        cleaned, decided, selected = _phases(section, planned, place, progress)
        return _finish(section, planned, place, folder, (cleaned, decided, selected))


def _empty(folder: Path) -> None:
    """Remove what a killed build left in its folder, half-written files among it."""
    for other in folder.iterdir():
        if other.is_dir() and other.name != SCRATCH:
            shutil.rmtree(other)
        elif other.is_file():
            other.unlink()


def _phases(section: CorpusSection, planned: Plan, place: Path, progress: Progress) -> tuple[Facts, Facts, Facts]:
    """Do what is not done of the three phases; returns the manifests of each."""
    inputs = planned.texts
    index = phases.indexed(section, planned, place)
    sizes = [item.size for item in inputs]
    with engine(section.engine, section.workers) as running:
        tasks = phases.clean_tasks(section, inputs, index, place)
        cleaned = executor.run(tasks, place / phases.CLEAN, running, Pace(progress, "cleaned", sizes))
        task = phases.decide_task(section, inputs, cleaned, place, index)
        decided = executor.run([task], place / phases.DECIDE, Inline(), lambda number, attempt: None)
        tasks = phases.select_tasks(inputs, cleaned, place)
        selected = executor.run(tasks, place / phases.SELECT, running, Pace(progress, "selected", sizes))
    return cleaned, decided, selected


def _finish(
    section: CorpusSection, planned: Plan, place: Path, folder: Path, found: tuple[Facts, Facts, Facts]
) -> dict[str, Any]:
    """Put the shards together, with the questions, the card and all counts; raises if a row is missing."""
    cleaned, decided, selected = found
    counts = _counts([*cleaned, *decided])
    rows_in, kept = (
        sum(m["facts"][name] for m in manifests) for name, manifests in (("rows_in", cleaned), ("rows_out", selected))
    )
    if rows_in + made(counts) != kept + dropped(counts):
        what = f"{rows_in} rows in, {made(counts)} made, {kept} out, {dropped(counts)} dropped"
        raise PolyclinicError(folder, what, "report this")
    _gather(planned.texts, place, folder)
    faults = Faults(strict=section.on_error == "fail")
    questions = evaluated(planned, wanted_languages(section), faults, section.privacy, counts)
    counts += faults.counts("exams: ")
    folders = (place / phases.CLEAN / item.name for item in planned.texts)
    gather(folders, faults.lines(), folder / QUARANTINE)
    write_table(folder / "questions.parquet", QUESTIONS, (q.row() for q in questions))
    write_json(folder / PLAN, written(section, planned))
    write_json(folder / DROPS_FILE, _drops([*cleaned, *selected]))
    flow = {"steps": _steps(cleaned, decided), "quality": _quality(planned.texts, place)}
    shown = {"wanted": list(wanted_languages(section)), **flow}
    write_card(folder, read_documents(folder), questions, rows_in, counts, shown)
    facts = {"rows_in": rows_in, "documents": kept, "questions": len(questions)}
    return {**facts, "counts": dict(sorted(counts.items()))}


def _counts(manifests: Iterable[dict[str, Any]]) -> Counter[str]:
    """Add up the counts of tasks."""
    total: Counter[str] = Counter()
    for manifest in manifests:
        total += Counter(manifest["facts"]["counts"])
    return total


def _drops(manifests: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Add up what tasks dropped, by language and reason."""
    total: Counter[tuple[str, str]] = Counter()
    for manifest in manifests:
        for code, reasons in manifest["facts"][DROPS].items():
            total.update({(reason, code): n for reason, n in reasons.items()})
    return drops(total)


def _steps(cleaned: Facts, decided: Facts) -> list[dict[str, Any]]:
    """Return rows in and out of each step over all shards, and of what was decided over all."""
    out: dict[str, dict[str, Any]] = {}
    for step in (step for manifest in cleaned for step in manifest["facts"]["steps"]):
        one = out.setdefault(step["step"], {"step": step["step"], "rows_in": 0, "rows_out": 0, "counts": Counter()})
        for key in ("rows_in", "rows_out"):
            one[key] += step[key]
        one["counts"].update(step["counts"])
    rows, counts = decided[0]["facts"]["rows"], decided[0]["facts"]["counts"]
    whole = {"step": "decide", "rows_in": rows, "rows_out": rows - dropped(counts), "counts": counts}
    return [{**one, "counts": dict(sorted(one["counts"].items()))} for one in (*out.values(), whole)]


def _quality(inputs: Sequence[Input], place: Path) -> dict[str, dict[str, float]]:
    folders = [place / phases.CLEAN / item.name for item in inputs]
    decisions = place / phases.DECIDE / phases.DECIDED
    return medians(folders, [decisions / f"{item.name}.parquet" for item in inputs])


def _gather(inputs: Sequence[Input], place: Path, folder: Path) -> None:
    """Put the selected shards into the corpus folder, without a copy where the file system can link.

    A linked file is in two places, so nothing may write into it: shards and corpora are only replaced whole.
    """
    for report in REPORTS:
        if (place / phases.DECIDE / phases.DECIDED / report).is_file():
            shutil.copyfile(place / phases.DECIDE / phases.DECIDED / report, folder / report)
    for kind, file in (("documents", DOCUMENTS_FILE), ("dropped", DROPPED_FILE)):
        (folder / kind).mkdir()
        for item in inputs:
            source, target = place / phases.SELECT / item.name / file, folder / kind / f"{item.name}.parquet"
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents of a built corpus in plan order."""
    for path in sorted((folder / "documents").glob("*.parquet")):
        yield from (Document.from_row(row) for row in read_rows(path))
