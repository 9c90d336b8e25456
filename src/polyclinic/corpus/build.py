"""Build a corpus: clean shard by shard, decide over all, select shard by shard; then card and manifest.

The shard list depends on the inputs and never on the number of workers, and whatever looks at more
than one document follows the order of the plan, so output bytes do not depend on workers either.
Rows in = rows out + drops, or the build fails.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from polyclinic.corpus import executor, readers, starter
from polyclinic.corpus.card import write_card
from polyclinic.corpus.clean import DOCUMENTS_FILE, DROPPED_FILE, Cleaning, asked, clean
from polyclinic.corpus.decide import Deciding, decide
from polyclinic.corpus.executor import Task
from polyclinic.corpus.identify import version
from polyclinic.corpus.inputs import Input, plan, wanted_languages
from polyclinic.corpus.normalise import clean_question
from polyclinic.corpus.select import Selecting, select
from polyclinic.corpus.tables import QUESTIONS, read_rows, write_table
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import PolyclinicError
from polyclinic.progress import Progress
from polyclinic.records import Document, Question
from polyclinic.runs import SCRATCH, digest, sha256_file

Facts = list[dict[str, Any]]


def build(section: CorpusSection, folder: Path, progress: Progress, shards: Path | None = None) -> dict[str, Any]:
    """Build the corpus into an empty folder; returns the facts for its manifest.

    Finished shards stay below `shards`, so that what they do not depend on can change without them.
    """
    place = shards or folder / SCRATCH / "shards"
    wanted = wanted_languages(section)
    inputs = plan(section, section.texts)
    cleaned = _clean(section, inputs, wanted, place, progress)
    decided = _decide(section, inputs, cleaned, place)
    selected = _select(section, inputs, cleaned, place, progress)
    counts = _counts([*cleaned, decided])
    rows_in, kept = (
        sum(m["facts"][name] for m in found) for name, found in (("rows_in", cleaned), ("rows_out", selected))
    )
    dropped = sum(n for reason, n in counts.items() if reason.startswith("dropped"))
    if rows_in != kept + dropped:
        raise PolyclinicError(folder, f"{rows_in} rows in, {kept} out, {dropped} dropped", "report this")
    _gather(inputs, place, folder)
    questions = _questions(section, wanted)
    write_table(folder / "questions.parquet", QUESTIONS, (q.row() for q in questions))
    facts = {"rows_in": rows_in, "documents": kept, "questions": len(questions)}
    write_card(folder, read_documents(folder), questions, rows_in, counts)
    return {**facts, "counts": dict(sorted(counts.items()))}


@cache
def code() -> str:
    """Return a digest of the code of this stage: another version of a step may give other bytes."""
    files = sorted(resources.files("polyclinic.corpus").iterdir(), key=lambda file: file.name)
    return digest({file.name: file.read_text("utf-8") for file in files if file.name.endswith(".py")})


def _clean(
    section: CorpusSection, inputs: Sequence[Input], wanted: tuple[str, ...], place: Path, progress: Progress
) -> Facts:
    """Clean every input on its own."""
    settings = {
        "section": section.cleaning(),
        "wanted": wanted,
        "code": code(),
        "identifier": version(section.identifier),
    }
    tasks = [
        Task(
            item.name,
            {"input": [item.sha256, item.source.model_dump()], **settings},
            partial(clean, Cleaning(item, section, wanted)),
        )
        for item in inputs
    ]
    return executor.run(tasks, place / "clean", section.engine, section.workers, _report(progress, "cleaned"))


def _decide(section: CorpusSection, inputs: Sequence[Input], cleaned: Facts, place: Path) -> dict[str, Any]:
    """Decide over all shards."""
    key = {"shards": [m["outputs"] for m in cleaned], "section": section.cleaning(), "code": code()}
    folders = tuple(place / "clean" / item.name for item in inputs)
    task = Task("all", key, partial(decide, Deciding(tuple(inputs), folders, section)))
    return executor.run([task], place / "decide", "local", 1, lambda done, total: None)[0]


def _select(section: CorpusSection, inputs: Sequence[Input], cleaned: Facts, place: Path, progress: Progress) -> Facts:
    """Carry the decisions out; a shard whose decisions stayed the same is not written again."""
    tasks = []
    for item, manifest in zip(inputs, cleaned, strict=True):
        decisions = place / "decide" / "all" / f"{item.name}.parquet"
        key = {"shard": manifest["outputs"], "decisions": sha256_file(decisions), "code": code()}
        work = partial(select, Selecting(place / "clean" / item.name, decisions))
        tasks.append(Task(item.name, key, work))
    return executor.run(tasks, place / "select", section.engine, section.workers, _report(progress, "selected"))


def _report(progress: Progress, what: str) -> executor.Report:
    return lambda done, total: progress.advance(done, total, what)


def _counts(manifests: Iterable[dict[str, Any]]) -> Counter[str]:
    """Add up the counts of tasks."""
    total: Counter[str] = Counter()
    for manifest in manifests:
        total += Counter(manifest["facts"]["counts"])
    return total


def _gather(inputs: Sequence[Input], place: Path, folder: Path) -> None:
    """Put the selected shards into the corpus folder, without a copy where the file system can link."""
    for kind, file in (("documents", DOCUMENTS_FILE), ("dropped", DROPPED_FILE)):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir()
        for item in inputs:
            source, target = place / "select" / item.name / file, folder / kind / f"{item.name}.parquet"
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def _questions(section: CorpusSection, wanted: tuple[str, ...]) -> list[Question]:
    """Collect the exam questions in the wanted languages, in source order."""
    out: list[Question] = []
    taken: Counter[tuple[int, str]] = Counter()
    for item in plan(section, section.exams):
        found: Iterable[Question] = (q for q in starter.questions() if asked(item.source, q))
        if item.path is not None:
            found = readers.read(item.path, item.source, readers.to_question)
        cap = item.source.max_per_language
        for question in found:
            place = (item.number, question.language)
            if question.language in wanted and (cap is None or taken[place] < cap):
                taken[place] += 1
                out.append(clean_question(question))
    return out


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents of a built corpus in plan order."""
    for path in sorted((folder / "documents").glob("*.parquet")):
        yield from (Document.from_row(row) for row in read_rows(path))
