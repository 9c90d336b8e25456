"""The corpus at a million documents: `python benchmarks/corpus.py FOLDER [--documents N]`.

Real documents of POLYCLINIC_DATA, repeated with edits, so that no two are equal. Printed are CPU
seconds, not wall time: steps alone (read, normalise, quality; every step), peak memory of one
shard against ten times its input, and the whole build with its dedup. FOLDER gets about 3 kB a
document and is left for another run.
"""

import argparse
import json
import os
import random
import resource
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
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"done-{documents}"
    if done.is_file():
        return
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


def alone(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def stream(folder: Path, files: int, kind: str) -> None:
    """Clean one input after the other in this process; print documents, CPU seconds and peak memory."""
    import tempfile

    from polyclinic.corpus import clean as cleaning
    from polyclinic.corpus.inputs import plan, wanted_languages
    from polyclinic.corpus_section import CorpusSection

    off = {"check_language": "off", "dedup": None, "decontaminate": None, "privacy": {"mode": "off"}}
    values: dict[str, Any] = {"root": str(folder), "texts": [{"path": "*.jsonl"}], "quality": {}}
    section = CorpusSection.model_validate({**values, **(off if kind == "light" else {})})
    inputs = plan(section, section.texts)[:files]
    wanted = wanted_languages(section)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        _clean_all(cleaning, inputs[:1], section, wanted, Path(place) / "warm")  # models are loaded once a process
        clock, rows = time.process_time(), 0
        rows = _clean_all(cleaning, inputs, section, wanted, Path(place) / "run")
        seconds = time.process_time() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"documents": rows, "seconds": seconds, "peak": peak}))


def _clean_all(cleaning: Any, inputs: Any, section: Any, wanted: Any, place: Path) -> int:
    rows = 0
    for item in inputs:
        folder = place / item.name
        folder.mkdir(parents=True)
        rows += cleaning.clean(cleaning.Cleaning(item, section, wanted), folder)["rows_in"]
    return rows


def lines() -> Iterator[str]:
    """Measure and yield what is to be read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--stream", choices=("light", "full"))
    parser.add_argument("--files", type=int, default=1)
    given = parser.parse_args()
    folder = given.folder / "in"
    if given.stream:
        stream(folder, given.files, given.stream)
        return
    write(folder, given.documents)
    for kind, what in (("light", "read, normalise, quality"), ("full", "every step")):
        runs = [alone(str(given.folder), "--stream", kind) for _ in range(3)]
        rates = sorted(run["documents"] / run["seconds"] for run in runs)
        yield f"{what:<28} {rates[-1]:8,.0f} documents/s/core (median {rates[1]:,.0f})"
    one, ten = (alone(str(given.folder), "--stream", "light", "--files", str(n)) for n in (1, GROWTH))
    yield f"peak memory, {one['documents']:,} documents {one['peak'] / 1e6:8,.0f} MB"
    ratio = ten["peak"] / one["peak"]
    yield f"peak memory, {ten['documents']:,} documents {ten['peak'] / 1e6:8,.0f} MB, {ratio:.2f} of it"


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
