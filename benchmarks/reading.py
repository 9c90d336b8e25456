"""Documents read and normalised in a second of one core: `python benchmarks/reading.py FOLDER`.

FOLDER holds JSON lines in the form of docs/corpus.md. They are written anew as each kind of file,
read and normalised, in rounds; the least CPU time of each counts.
"""

import csv
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.normalise import normalise
from polyclinic.corpus.read.faults import Faults
from polyclinic.corpus.read.read import documents
from polyclinic.corpus_section import Source

ROUNDS = 5
NAMES = ("id", "language", "source", "licence", "text")


def write(records: list[dict[str, str]], folder: Path) -> list[Path]:
    """Write the same records as every kind of file."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    made = {
        "all.jsonl": lines,
        "all.jsonl.gz": gzip.compress(lines),
        "all.jsonl.zst": pa.compress(lines, "zstd", asbytes=True),
        "all.json": json.dumps(records, ensure_ascii=False).encode(),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    pq.write_table(pa.Table.from_pylist(records), folder / "all.parquet", compression="zstd")
    with (folder / "all.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, NAMES)
        table.writeheader()
        table.writerows(records)
    return [folder / name for name in (*made, "all.parquet", "all.csv")]


def measure(path: Path) -> tuple[int, float, float]:
    """Return documents, and CPU seconds of reading and of normalising."""
    count, reading, normalising, start = 0, 0.0, 0.0, time.process_time()
    for batch in documents(path, Source(path="*"), Faults(strict=True), path.name):
        read = time.process_time()
        count += normalise(batch).batch.num_rows
        reading, normalising, start = (
            reading + read - start,
            normalising + time.process_time() - read,
            time.process_time(),
        )
    return count, reading + time.process_time() - start, normalising


def main() -> None:
    files = sorted(Path(sys.argv[1]).glob("*.jsonl"))
    records = [json.loads(line) for path in files for line in path.open("rb")]
    kept = [{name: str(record.get(name, "")) for name in NAMES} for record in records]
    size = sum(len(record["text"].encode()) for record in kept) / len(kept)
    print(f"{len(kept)} documents, {size:.0f} bytes of text each\n")
    print("| file | read, us | normalise, us | documents/s/core |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in write(kept, Path(folder)):
            rounds = [measure(path) for _ in range(ROUNDS)]
            count = rounds[0][0]
            read, normalised = (min(found[i] for found in rounds) / count * 1e6 for i in (1, 2))
            print(f"| {path.name} | {read:.1f} | {normalised:.1f} | {1e6 / (read + normalised):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
