"""What only the whole corpus can decide: who doubles whom, what is over a cap, which split a document is of.

Reads the marks of all shards and writes a decision for each row. Rulings come one after the other;
each sees which rows still stand. All depend on what the records are, none on who computed them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.clean import MARKS_FILE
from polyclinic.corpus.dedup import dedup
from polyclinic.corpus.dedup.dedup import Mask, is_held_out, is_validation
from polyclinic.corpus.engine.inputs import Input
from polyclinic.corpus.leaks import leaks
from polyclinic.corpus.quality import percentiles
from polyclinic.corpus.read import identity
from polyclinic.corpus.read.identity import INPUT
from polyclinic.corpus.step import DROPPED
from polyclinic.corpus.tables import DECISIONS, Writer
from polyclinic.corpus_section import CorpusSection

Ruling = Callable[[pa.Table, Mask], dict[int, str]]


class Deciding(NamedTuple):
    """What decides: the shards' inputs and folders, in order, and the section."""

    inputs: tuple[Input, ...]
    shards: tuple[Path, ...]
    section: CorpusSection
    exams: Path | None = None


def rulings(deciding: Deciding, folder: Path, counts: Counter[str]) -> list[Ruling]:
    """Return the rulings a section asks for, in the order in which they are made.

    They count what they leave alone, and some report into a folder.
    """
    caps = [item.source.max_per_language for item in deciding.inputs]
    capped = partial(over_cap, caps=caps, sources=[item.number for item in deciding.inputs])
    section, files = deciding.section, [item.file for item in deciding.inputs]
    found = [partial(identity.check_identities, files=files, strict=section.on_error == "fail")]
    if section.decontaminate and deciding.exams:
        found.append(partial(leaks.leaked, exams=deciding.exams, folder=folder))
    if section.dedup:
        found.append(partial(dedup.duplicates, section=section.dedup))
    if section.quality:
        found.append(partial(percentiles.beyond, section=section.quality, root=section.root, counts=counts))
    return [*found, capped]


def decide(deciding: Deciding, folder: Path) -> Mapping[str, Any]:
    """Write `NAME.parquet` for each shard: what becomes of its rows."""
    marks = read_marks(deciding.shards)
    marks = marks.set_column(marks.schema.get_field_index("split"), "split", pa.array(splits(marks, deciding.section)))
    standing = np.ones(marks.num_rows, dtype=np.bool_)
    reasons: list[str | None] = [None] * marks.num_rows
    counts: Counter[str] = Counter()
    for ruling in rulings(deciding, folder, counts):
        for row, reason in ruling(marks, standing.copy()).items():
            reasons[row] = reason
            standing[row] = False
            counts[f"{DROPPED}{reason}"] += 1
    table = pa.table({"reason": pa.array(reasons, pa.string()), "split": marks.column("split")}, schema=DECISIONS)
    shard_of = marks.column(INPUT).to_numpy()
    ends = np.searchsorted(shard_of, np.arange(len(deciding.inputs) + 1))
    for item, first, last in zip(deciding.inputs, ends, ends[1:], strict=False):
        with Writer(folder / f"{item.name}.parquet") as writer:
            writer.write(pa.RecordBatch.from_pylist([], schema=DECISIONS))
            for batch in table.slice(first, last - first).to_batches():
                writer.write(batch)
    return {"rows": marks.num_rows, "counts": dict(sorted(counts.items()))}


def read_marks(shards: Sequence[Path]) -> pa.Table:
    """Return the marks of all rows, with the number of their shard."""
    tables = []
    for number, shard in enumerate(shards):
        table = pq.read_table(shard / MARKS_FILE)
        tables.append(table.append_column(INPUT, pa.array(np.full(table.num_rows, number, dtype=np.int32))))
    return pa.concat_tables(tables)


def splits(marks: pa.Table, section: CorpusSection) -> list[str]:
    """Return where each document goes: as its source says, or by its group; validation comes out of training."""
    out = []
    for group, split in zip(marks.column("group").to_pylist(), marks.column("split").to_pylist(), strict=True):
        found = split or ("held_out" if is_held_out(group, section.held_out) else "train")
        out.append("validation" if found == "train" and is_validation(group, section.validation) else found)
    return out


def over_cap(marks: pa.Table, standing: Mask, caps: Sequence[int | None], sources: Sequence[int]) -> dict[int, str]:
    """Return the rows past the number that their source may give of their language, in the order of the inputs."""
    if not any(caps):
        return {}
    taken: Counter[tuple[int, str]] = Counter()
    out = {}
    codes, shards = marks.column("language").to_pylist(), marks.column(INPUT).to_pylist()
    for row in np.flatnonzero(standing).tolist():
        cap, place = caps[shards[row]], (sources[shards[row]], codes[row])
        taken[place] += 1
        if cap is not None and taken[place] > cap:
            out[row] = "over max_per_language"
    return out
