"""Build a corpus: read, normalise, identify shard by shard; then merge, card and manifest.

One input file is one shard. The shard list depends on the inputs and never on the number of
workers, and the merge runs in plan order, so output bytes do not depend on workers either. Rows
in = rows out + drops, or the build fails.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.corpus import readers, starter
from polyclinic.corpus.card import write_card
from polyclinic.corpus.dedup import fingerprint, is_held_out
from polyclinic.corpus.identify import Identifier, identify
from polyclinic.corpus.normalise import normalise
from polyclinic.corpus.tables import DOCUMENTS, QUESTIONS, batches, read_rows, write_table
from polyclinic.errors import DataError, PolyclinicError
from polyclinic.families import fifty
from polyclinic.languages import language
from polyclinic.progress import Progress
from polyclinic.recipe import CorpusSection, Source
from polyclinic.records import Document, Question
from polyclinic.runs import sha256_file

STARTER = "starter"


class Input(NamedTuple):
    """One file (or the starter corpus) of one source: one shard."""

    name: str
    source: Source
    path: Path | None
    sha256: str


class Shard(NamedTuple):
    """What a worker needs: input, output, wanted languages, and whether to drop strangers."""

    input: Input
    output: Path
    wanted: tuple[str, ...]
    drop: bool


@dataclass
class Tally:
    """Rows read and what became of them, with reasons."""

    rows_in: int
    counts: Counter[str]

    def dropped(self) -> int:
        """Return how many rows were dropped, whatever the reason."""
        return sum(n for reason, n in self.counts.items() if reason.startswith("dropped"))


def wanted_languages(section: CorpusSection) -> tuple[str, ...]:
    """Return the codes a recipe asks for, checked and without aliases."""
    return tuple(language(code).code for code in section.languages or fifty())


def plan(section: CorpusSection, sources: Iterable[Source]) -> list[Input]:
    """List the inputs in a fixed order with their digests; raises DataError if a glob finds nothing."""
    out: list[Input] = []
    for number, source in enumerate(sources):
        if source.path is None:
            out.append(Input(f"{number:02d}-{STARTER}", source, None, starter.version()))
            continue
        root = Path(section.root)
        found = sorted(root.glob(source.path)) if not Path(source.path).is_absolute() else [Path(source.path)]
        if not found:
            raise DataError(root / source.path, "no file matches", "check corpus.root and the path")
        out += [Input(f"{number:02d}-{path.stem}", source, path, sha256_file(path)) for path in found]
    return out


def build(section: CorpusSection, folder: Path, progress: Progress) -> dict[str, Any]:
    """Build the corpus into an empty folder; returns the facts for its manifest."""
    wanted = wanted_languages(section)
    raw, documents = folder / "raw", folder / "documents"
    for sub in (raw, documents):
        sub.mkdir(exist_ok=True)
    inputs = plan(section, section.texts)
    shards = [Shard(i, raw / f"{i.name}.parquet", wanted, section.check_language == "drop") for i in inputs]
    tally = _run_shards(shards, section.workers, progress)
    kept = _merge(shards, section, documents, tally)
    if tally.rows_in != kept + tally.dropped():
        raise PolyclinicError(folder, f"{tally.rows_in} rows in, {kept} out, {tally.dropped()} dropped", "report this")
    for shard in shards:
        shard.output.unlink()
    raw.rmdir()
    questions = _questions(section, wanted)
    write_table(folder / "questions.parquet", QUESTIONS, (q.row() for q in questions))
    facts = {"rows_in": tally.rows_in, "documents": kept, "questions": len(questions)}
    write_card(folder, read_documents(folder), questions, tally.rows_in, tally.counts)
    return {**facts, "counts": dict(sorted(tally.counts.items()))}


def _run_shards(shards: list[Shard], workers: int, progress: Progress) -> Tally:
    """Run every shard, in this process or in a pool, and add up the counts in plan order."""
    tally = Tally(0, Counter())
    with _pool(workers) as pool:
        futures: list[Future[Tally] | None] = [pool.submit(run_shard, s) if pool else None for s in shards]
        for done, (shard, future) in enumerate(zip(shards, futures, strict=True), start=1):
            result = future.result() if future else run_shard(shard)
            tally.rows_in += result.rows_in
            tally.counts += result.counts
            progress.advance(done, len(shards), f"{tally.rows_in:,} rows")
    return tally


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    if workers == 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


@cache
def _identifier(wanted: tuple[str, ...]) -> Identifier:
    return Identifier(wanted)


def run_shard(shard: Shard) -> Tally:
    """Read and clean one input; a pure function of the shard apart from the file it writes."""
    tally = Tally(0, Counter())

    def rows() -> Iterator[dict[str, Any]]:
        for batch in batches(DOCUMENTS, (d.row() for d in _read(shard.input))):
            tally.rows_in += batch.num_rows
            cleaned = normalise(batch)
            checked = identify(cleaned.batch, _identifier(shard.wanted), shard.drop)
            tally.counts += cleaned.counts + checked.counts
            yield from checked.batch.to_pylist()

    write_table(shard.output, DOCUMENTS, rows())
    return tally


def _read(item: Input) -> Iterator[Document]:
    if item.path is not None:
        return readers.read(item.path, item.source, readers.to_document)
    only = item.source.languages
    return (d for d in starter.documents() if not only or d.language in only)


def _merge(shards: list[Shard], section: CorpusSection, folder: Path, tally: Tally) -> int:
    """Drop what is not wanted, doubled or over the cap; decide what is held out; returns rows kept."""
    seen: set[bytes] = set()
    kept = 0
    for shard in shards:
        taken: Counter[str] = Counter()

        def rows(shard: Shard = shard, taken: Counter[str] = taken) -> Iterator[dict[str, Any]]:
            for row in read_rows(shard.output):
                document = Document.from_row(row)
                reason = _reason(document, shard, seen, taken)
                if reason:
                    tally.counts[f"dropped: {reason}"] += 1
                    continue
                taken[document.language] += 1
                held_out = is_held_out(document.group, section.held_out)
                split = document.split or ("held_out" if held_out else "train")
                yield replace(document, split=split).row()

        kept += write_table(folder / f"{shard.input.name}.parquet", DOCUMENTS, rows())
    return kept


def _reason(document: Document, shard: Shard, seen: set[bytes], taken: Counter[str]) -> str | None:
    """Say why a document is dropped in the merge, or None; remembers its fingerprint."""
    if document.language not in shard.wanted:
        return "language not in the recipe"
    cap = shard.input.source.max_per_language
    if cap is not None and taken[document.language] >= cap:
        return "over max_per_language"
    mark = fingerprint(document)
    if mark in seen:
        return "exact duplicate"
    seen.add(mark)
    return None


def _questions(section: CorpusSection, wanted: tuple[str, ...]) -> list[Question]:
    """Collect the exam questions in the wanted languages, in source order."""
    out: list[Question] = []
    for item in plan(section, section.exams):
        found: Iterable[Question] = starter.questions()
        if item.path is not None:
            found = readers.read(item.path, item.source, readers.to_question)
        taken: Counter[str] = Counter()
        for question in found:
            cap, splits = item.source.max_per_language, item.source.splits
            room = cap is None or taken[question.language] < cap
            only = item.source.languages
            listed = question.language in wanted and (not only or question.language in only)
            if listed and room and (not splits or question.split in splits):
                taken[question.language] += 1
                out.append(question)
    return out


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents of a built corpus in plan order."""
    for path in sorted((folder / "documents").glob("*.parquet")):
        yield from (Document.from_row(row) for row in read_rows(path))
