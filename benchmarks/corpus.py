"""The cleaning pass at scale: `python benchmarks/corpus.py FOLDER [--documents N] [--rows N]`.

FOLDER/in gets N real documents of POLYCLINIC_DATA, repeated with edits so that no two are equal, unless they are
there (about 1.6 kB a document). Printed are CPU seconds, not wall time: each step per 1,000 documents, the least of
ROUNDS; the peak of a process that cleans one part of a file, ten parts, and one input of ten times the size; what
the marks take; and `decide` over as many rows of marks as asked for, made of those by repetition.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = 20
CHARACTERS = 1400  # mean of a document
EDITS = 0.05  # share of its words that are exchanged
GROWTH = 10
ROUNDS, BATCHES = 5, 5  # of the table of steps


def sources() -> list[dict[str, Any]]:
    """Return the real documents of all languages, cut to about the mean length."""
    root = Path(os.environ["POLYCLINIC_DATA"])
    out = []
    for path in sorted(root.glob("general/*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            text = row["text"]
            for start in range(0, len(text), CHARACTERS):
                piece = text[start : start + CHARACTERS]
                if len(piece) > CHARACTERS // 2:
                    out.append({"language": row["language"], "source": row["source"], "licence": row["licence"],
                                "text": piece})  # fmt: skip
    return out


def edited(draw: random.Random, text: str) -> str:
    """Exchange a share of the words by words from elsewhere in the text; of characters where there are no spaces."""
    units = text.split(" ")
    joint = " "
    if len(units) < len(text) / 20:
        units, joint = list(text), ""
    for _ in range(max(1, int(EDITS * len(units)))):
        units[draw.randrange(len(units))] = units[draw.randrange(len(units))]
    return joint.join(units)


def write(folder: Path, documents: int) -> None:
    """Write the input files unless they are there."""
    done = folder / f"done-{documents}"
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    found, draw = sources(), random.Random(0)  # noqa: S311 - an order to be repeated, not a secret
    draw.shuffle(found)
    number = 0
    for index in range(FILES):
        with (folder / f"{index:03d}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(documents // FILES):
                row = found[number % len(found)]
                text = row["text"] if number < len(found) else edited(draw, row["text"])
                file.write(json.dumps({"id": f"d{number}", **row, "text": text}, ensure_ascii=False) + "\n")
                number += 1
    done.write_text("")


def prepared(folder: Path, place: Path) -> Any:
    """Return how the first file is cleaned: every step of the defaults, quality, and real exams where there are any."""
    from polyclinic.corpus.clean import Cleaning
    from polyclinic.corpus.engine import phases
    from polyclinic.corpus.engine.inputs import plan_all, wanted_languages
    from polyclinic.corpus_section import CorpusSection

    values: dict[str, Any] = {"root": str(folder / "in"), "texts": [{"path": "000.jsonl"}], "quality": {}}
    if data := os.environ.get("POLYCLINIC_DATA"):
        values["exams"] = [{"path": f"{data}/exams/*.jsonl"}]
    section = CorpusSection.model_validate(values)
    planned = plan_all(section)
    item = planned.texts[0]
    whole = item._replace(name="whole", part=None, size=item.path.stat().st_size)
    place.mkdir(parents=True, exist_ok=True)
    return Cleaning(whole, section, wanted_languages(section), phases.indexed(section, planned, place)[0])


def table(folder: Path, place: Path) -> None:
    """Print the CPU seconds of each step per 1,000 documents that it gets."""
    from polyclinic.corpus import clean
    from polyclinic.corpus.read import read
    from polyclinic.corpus.read.faults import Faults
    from polyclinic.corpus.step import MARK
    from polyclinic.corpus.tables import DOCUMENTS, MARKS, Writer

    cleaning = prepared(folder, place)
    steps, best, rows = clean.steps(cleaning, place), {}, {}
    item = cleaning.input
    for turn in range(ROUNDS + 1):  # the first loads models and tables
        spent: dict[str, float] = {}
        clock = time.process_time()

        def took(name: str, count: int) -> None:
            nonlocal clock
            now = time.process_time()
            spent[name] = spent.get(name, 0.0) + now - clock  # noqa: B023 - called within this turn alone
            if turn == 1:  # noqa: B023
                rows[name] = rows.get(name, 0) + count
            clock = time.process_time()

        batches = read.documents(item.path, item.source, Faults(strict=True), item.file)
        with Writer(place / "documents.parquet") as documents, Writer(place / "marks.parquet") as marks:
            for _ in range(BATCHES):
                clock = time.process_time()
                batch = next(batches)
                took("read", batch.num_rows)
                for name, step in steps:
                    count = batch.num_rows
                    batch = step(batch).batch
                    took(name, count)
                documents.write(batch.select(DOCUMENTS.names))
                marks.write(batch.select([n for n in batch.schema.names if n in MARKS or n.startswith(MARK)]))
                took("write", batch.num_rows)
        if turn:
            best = {name: min(value, best.get(name, value)) for name, value in spent.items()}
    own = {name: 1000 * best[name] / rows[name] for name in best}
    print(json.dumps(own))


def stream(folder: Path, place: Path, kind: str) -> None:
    """Clean a tenth of a file, its ten tenths one after the other, or the whole as one; print rows and the peak."""
    from polyclinic.corpus.clean import clean
    from polyclinic.corpus.read.rows import Part

    cleaning = prepared(folder, place)
    tenths, start, line = [], 0, 1
    with cleaning.input.path.open("rb") as file:
        size = cleaning.input.size
        for number in range(GROWTH):
            goal, lines = size * (number + 1) // GROWTH, 0
            while file.tell() < goal and file.readline():
                lines += 1
            tenths.append(Part(start, file.tell(), line))
            start, line = file.tell(), line + lines
    parts: list[Part | None] = {"one": tenths[:1], "ten": tenths, "whole": [None]}[kind]
    clock, rows, kept = time.process_time(), 0, 0
    for number, part in enumerate(parts):
        made = place / f"{kind}-{number}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        facts = clean(cleaning._replace(input=cleaning.input._replace(part=part)), made)
        rows, kept = rows + facts["rows_in"], kept + facts["rows_out"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": rows, "kept": kept, "seconds": time.process_time() - clock, "peak": peak}))


def marks_of(source: Path, target: Path, number: int) -> None:
    """Write marks again with other names, texts and signatures; which rows are alike stays as it was."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = pq.read_table(source).combine_chunks()
    other = np.random.default_rng(number)
    for name in ("id", "group"):
        at = found.schema.get_field_index(name)
        found = found.set_column(at, name, pc.binary_join_element_wise(found[name], f"-{number}", ""))
    for name, width in (("mark_exact", 16), ("mark_near", 110)):
        chunk = found[name].chunk(0)
        turned = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, width)[: len(chunk)]
        turned = turned ^ other.integers(0, 256, width, dtype=np.uint8)
        column = pa.Array.from_buffers(pa.binary(width), len(chunk), [chunk.buffers()[0], pa.py_buffer(turned)])
        found = found.set_column(found.schema.get_field_index(name), name, column)
    target.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, target / "marks.parquet", compression="zstd")


def deciding(folder: Path, place: Path, rows: int) -> None:
    """Decide over the marks of the whole file, repeated; print rows, CPU seconds, and what the peak grew by."""
    import pyarrow.parquet as pq

    from polyclinic.corpus.decide import Deciding, decide

    cleaning = prepared(folder, place)
    source = place / "whole-0" / "marks.parquet"
    times = max(1, rows // pq.read_metadata(source).num_rows)
    shards = [place / "many" / f"{number:05d}" for number in range(times)]
    for number, shard in enumerate(shards):
        marks_of(source, shard, number)
    inputs = tuple(cleaning.input._replace(name=shard.name) for shard in shards)
    target = place / "decided"
    target.mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.process_time()
    facts = decide(Deciding(inputs, tuple(shards), cleaning.section, cleaning.exams), target)
    seconds = time.process_time() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gone = sum(n for name, n in facts["counts"].items() if name.startswith("dropped"))
    found = {"rows": facts["rows"], "dropped": gone, "seconds": seconds, "before": before * 1024, "peak": peak * 1024}
    print(json.dumps(found))
    shutil.rmtree(place / "many")


def alone(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - ourselves
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lines(folder: Path, place: Path, rows: int) -> Iterator[str]:
    """Measure and yield what is to be read."""
    own = alone(str(folder), "--only", "steps")
    for name, seconds in own.items():
        yield f"{name:<16} {seconds:7.4f} CPU s per 1,000 documents"
    sums = {
        "all": tuple(own),
        "read, normalise, quality": ("read", "normalise", "quality"),
        "read, normalise, dedup, write": ("read", "normalise", "dedup", "write"),
    }
    for what, names in sums.items():
        yield f"{what:<30} {1000 / sum(own[name] for name in names):8,.0f} documents/s/core"
    runs = {kind: alone(str(folder), "--only", kind) for kind in ("one", "ten", "whole")}
    for kind, run in runs.items():
        ratio, speed = run["peak"] / runs["one"]["peak"], run["rows"] / run["seconds"]
        yield f"{kind:<6} {run['rows']:>9,} rows  peak {run['peak'] / 1e6:,.0f} MB ({ratio:.2f})  {speed:,.0f} rows/s"
    kept = runs["whole"]["kept"]
    for name in ("documents", "marks"):
        size = (place / "whole-0" / f"{name}.parquet").stat().st_size
        yield f"{name:<10} {size / kept:6.0f} bytes a document on disk"
    found = alone(str(folder), "--only", "decide", "--rows", str(rows))
    grown = (found["peak"] - found["before"]) / found["rows"]
    yield (
        f"decide {found['rows']:,} rows: {found['seconds']:.1f} CPU s, peak {found['peak'] / 1e6:,.0f} MB, "
        f"{grown:.0f} bytes a row; dropped {found['dropped']:,}"
    )


def main() -> None:
    """Measure one thing in this process, or all of them, each in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="where files are made; FOLDER/work when left out")
    parser.add_argument("--only", choices=("steps", "one", "ten", "whole", "decide"))
    given = parser.parse_args()
    place = given.work or Path(os.environ.get("CORPUS_WORK", given.folder / "work"))
    os.environ["CORPUS_WORK"] = str(place)
    if given.only == "steps":
        table(given.folder, place)
    elif given.only == "decide":
        deciding(given.folder, place, given.rows)
    elif given.only:
        stream(given.folder, place, given.only)
    else:
        write(given.folder / "in", given.documents)
        for line in lines(given.folder, place, given.rows):
            print(line, flush=True)


if __name__ == "__main__":
    main()
