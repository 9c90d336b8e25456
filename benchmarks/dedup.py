"""Near duplicates planted in real text: `POLYCLINIC_DATA=... python benchmarks/dedup.py [--rows N]`.

Copies of general documents with 1, 3 and 10 % of their words (characters where there are no spaces)
replaced or left out are planted. Prints recall for each kind of script, precision (exact Jaccard index of
5-character shingles at least 0.5 between a dropped text and the one kept), documents per second of
one core, and bytes. `--rows` measures the ruling alone on that many rows, a tenth near duplicates.
"""

import argparse
import json
import os
import random
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.dedup import dedup
from polyclinic.corpus.dedup.clusters import WIDTH
from polyclinic.corpus.normalise import normalise
from polyclinic.corpus.read import readers
from polyclinic.corpus.tables import DOCUMENTS, Writer, batches
from polyclinic.corpus.units import plain, tokens
from polyclinic.corpus_section import DedupSection, Source

RATES = (0.01, 0.03, 0.10)
UNSPACED = ("zh", "ja", "th", "lo")
PLANTED = 1500  # of each rate
ORIGINALS = 36_000
LONG = 40  # units of a text that is worth an edited copy


def documents(root: Path) -> list[dict[str, str]]:
    """Return the general documents of all languages, in the order of the files."""
    out = []
    for path in sorted((root / "general").glob("*.jsonl")):
        out += [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [d for d in out if d["text"].strip()]


def units_of(text: str, language: str) -> list[str]:
    """Return the words of a text, or its characters in languages without spaces."""
    return list(text) if language in UNSPACED else text.split(" ")


def edited(text: str, language: str, rate: float, chance: random.Random) -> str:
    """Return a text with a share of its units replaced by another of its units, or left out."""
    glue = "" if language in UNSPACED else " "
    units = units_of(text, language)
    places = chance.sample(range(len(units)), max(1, round(rate * len(units))))
    for place in places:
        units[place] = chance.choice(units) if chance.random() < 0.7 else ""  # noqa: PLR2004
    return glue.join(units)


def plant(originals: list[dict[str, str]], chance: random.Random) -> list[dict[str, str]]:
    """Return edited copies, their ids after those of their originals; a third are of unspaced scripts."""
    long = [len(units_of(d["text"], d["language"])) >= LONG for d in originals]
    groups = [
        [d for d, enough in zip(originals, long, strict=True) if enough and (d["language"] in UNSPACED) == unspaced]
        for unspaced in (False, True)
    ]
    out = []
    for rate in RATES:
        for group, share in zip(groups, (2, 1), strict=True):
            for d in chance.sample(group, PLANTED * share // 3):
                out.append({**d, "id": f"{d['id']}~{rate}", "text": edited(d["text"], d["language"], rate, chance)})
    return out


def jaccard(one: str, other: str) -> float:
    """Return the exact Jaccard index of the 5-character shingles of two texts."""
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (plain(one), plain(other)))
    return len(a & b) / len(a | b) if a | b else 1.0


def timed(path: Path, source: Source, out: Path, marked: bool) -> float:
    """Return the processor time of one pass from a file of records to documents, with marks or without."""
    begun = time.process_time()
    with Writer(out) as writer:
        for batch in batches(DOCUMENTS, (d.row() for d in readers.read(path, source, readers.to_document))):
            done = normalise(batch).batch
            writer.write(dedup.mark(done, DedupSection()).batch if marked else done)
    return time.process_time() - begun


def measure(root: Path) -> None:
    """Print recall, precision, speed and bytes."""
    chance = random.Random(7)  # noqa: S311
    found = documents(root)
    originals = chance.sample(found, min(ORIGINALS, len(found)))
    rows = originals + plant(originals, chance)
    chance.shuffle(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
        source = Source(path="in.jsonl")
        plain_pass, whole = (
            timed(folder / "in.jsonl", source, folder / f"{near}.parquet", near) for near in (False, True)
        )
        print(f"read, normalise, write: {len(rows) / plain_pass:,.0f} documents/s/core")
        print(f"read, normalise, mark, write: {len(rows) / whole:,.0f} documents/s/core")
        print(f"marks alone: {len(rows) / (whole - plain_pass):,.0f} documents/s/core")
        size = (folder / "True.parquet").stat().st_size - (folder / "False.parquet").stat().st_size
        print(f"marks on disk: {size / len(rows):.0f} bytes a document")
        marks = pq.read_table(folder / "True.parquet")
        judge(marks, {(r["source"], r["language"], r["id"]): r["text"] for r in rows})


def judge(marks: pa.Table, texts: dict[tuple[str, str, str], str]) -> None:
    """Print recall and precision of the ruling."""
    section = DedupSection()
    begun = time.process_time()
    gone = dedup.duplicates(marks, np.ones(marks.num_rows, dtype=np.bool_), section)
    print(f"ruling: {time.process_time() - begun:.2f} s for {marks.num_rows:,} rows, {len(gone):,} dropped")
    names = list(zip(*(marks.column(n).to_pylist() for n in ("source", "language", "id")), strict=True))
    for rate in RATES:
        for unspaced in (False, True):
            planted = [i for i, n in enumerate(names) if n[2].endswith(f"~{rate}") and (n[1] in UNSPACED) == unspaced]
            recall = sum(i in gone for i in planted) / len(planted)
            print(f"recall, {'unspaced' if unspaced else 'spaced'}, {rate:.0%} edits: {recall:.3f} of {len(planted)}")
    order = dedup.names_in_order(marks)
    order = order[marks.column(dedup.NEAR).is_valid().to_numpy()[order]]
    order = order[[gone.get(i) != "exact duplicate" for i in order.tolist()]]
    first = dedup.near(marks, order, section.similarity)
    print(f"{(first != np.arange(first.size)).sum()} near")
    pairs = [(order[i], order[f]) for i, f in enumerate(first.tolist()) if i != f]
    good = {True: 0, False: 0}
    all_ = {True: 0, False: 0}
    for dropped, kept in pairs:
        planted_one = "~" in names[dropped][2]
        all_[planted_one] += 1
        good[planted_one] += jaccard(texts[names[dropped]], texts[names[kept]]) >= 0.5  # noqa: PLR2004
    print(f"precision: {good[True]}/{all_[True]} planted, {good[False]}/{all_[False]} others")


def ruling(rows: int) -> None:
    """Print time and memory of the ruling on random signatures, a tenth of them copies with changed bytes."""
    chance = np.random.default_rng(7)
    signed = chance.integers(0, 256, (rows, WIDTH), dtype=np.uint8)
    copies = rows // 10
    signed[-copies:] = signed[:copies]
    signed[-copies:, chance.integers(0, WIDTH, 6)] += 1
    marks = pa.table(
        {
            "id": [f"document:{i:09d}" for i in range(rows)],
            "language": [("en", "fr", "zh")[i % copies % 3] for i in range(rows)],
            "source": ["source"] * rows,
            dedup.EXACT: pa.array(
                [row.tobytes() for row in chance.integers(0, 256, (rows, 16), np.uint8)], pa.binary(16)
            ),
            dedup.NEAR: pa.array([row.tobytes() for row in signed], pa.binary(WIDTH)),
        }
    )
    section = DedupSection()
    del signed
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    begun = time.process_time()
    gone = dedup.duplicates(marks, np.ones(rows, dtype=np.bool_), section)
    seconds = time.process_time() - begun
    grown = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory() - held
    print(f"{rows:,} rows: {seconds:.1f} s, {len(gone):,} dropped, marks {marks.nbytes / rows:.0f} bytes a row,")
    print(f"peak {grown / rows:.0f} bytes a row above the marks")


def main() -> None:
    """Measure on real text, or the ruling alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    rows = parser.parse_args().rows
    tokens([""])  # tables are made once a process
    if rows:
        ruling(rows)
    else:
        measure(Path(os.environ["POLYCLINIC_DATA"]))


if __name__ == "__main__":
    main()
