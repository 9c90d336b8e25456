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
from glob import glob
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.corpus import readers, starter
from polyclinic.corpus.card import write_card
from polyclinic.corpus.dedup import fingerprint, is_held_out, is_validation
from polyclinic.corpus.identify import Identifier, identify
from polyclinic.corpus.normalise import clean_question, normalise
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
    number: int  # of the source
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
    """List the inputs in a fixed order with their digests; raises DataError if a glob finds nothing.

    Names sort like the list, and no two are equal, whatever the files are called.
    """
    out: list[Input] = []
    for number, source in enumerate(sources):
        if source.path is None:
            out.append(Input(f"{number:03d}-{STARTER}", number, source, None, starter.version()))
            continue
        for index, path in enumerate(_files(Path(section.root), source.path)):
            out.append(Input(f"{number:03d}-{index:05d}-{path.stem}", number, source, path, sha256_file(path)))
    return out


def _files(root: Path, pattern: str) -> list[Path]:
    """Return the files of a path or glob, sorted; raises DataError where there is none."""
    named = root / pattern
    names = glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - a pattern may be absolute
    found = [named] if named.is_file() else sorted(root / name for name in names if (root / name).is_file())
    if not found:
        raise DataError(named, "no file matches", "check corpus.root and the path")
    return found


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
    return (d for d in starter.documents() if _asked(item.source, d))


def _asked(source: Source, record: Document | Question) -> bool:
    """Say whether a source's filters keep a record of the starter corpus."""
    only = readers.languages_of(source)
    named = not source.names or record.source in source.names
    return named and (not only or record.language in only) and (not source.splits or record.split in source.splits)


def _merge(shards: list[Shard], section: CorpusSection, folder: Path, tally: Tally) -> int:
    """Drop what is not wanted, doubled or over the cap; decide what is held out; returns rows kept."""
    seen: set[bytes] = set()
    taken: Counter[tuple[int, str]] = Counter()
    kept = 0
    for shard in shards:

        def rows(shard: Shard = shard) -> Iterator[dict[str, Any]]:
            for row in read_rows(shard.output):
                document = Document.from_row(row)
                reason = _reason(document, shard, seen, taken)
                if reason:
                    tally.counts[f"dropped: {reason}"] += 1
                    continue
                taken[shard.input.number, document.language] += 1
                yield replace(document, split=_split(document, section)).row()

        kept += write_table(folder / f"{shard.input.name}.parquet", DOCUMENTS, rows())
    return kept


def _split(document: Document, section: CorpusSection) -> str:
    """Return where a document goes: as its source says, or by its group; validation comes out of training alone."""
    held_out = is_held_out(document.group, section.held_out)
    split = document.split or ("held_out" if held_out else "train")
    return "validation" if split == "train" and is_validation(document.group, section.validation) else split


def _reason(document: Document, shard: Shard, seen: set[bytes], taken: Counter[tuple[int, str]]) -> str | None:
    """Say why a document is dropped in the merge, or None; remembers its fingerprint."""
    if document.language not in shard.wanted:
        return "language not in the recipe"
    cap = shard.input.source.max_per_language
    if cap is not None and taken[shard.input.number, document.language] >= cap:
        return "over max_per_language"
    mark = fingerprint(document)
    if mark in seen:
        return "exact duplicate"
    seen.add(mark)
    return None


def _questions(section: CorpusSection, wanted: tuple[str, ...]) -> list[Question]:
    """Collect the exam questions in the wanted languages, in source order."""
    out: list[Question] = []
    taken: Counter[tuple[int, str]] = Counter()
    for item in plan(section, section.exams):
        found: Iterable[Question] = (q for q in starter.questions() if _asked(item.source, q))
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
