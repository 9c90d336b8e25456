"""Exam items planted in real text: `POLYCLINIC_DATA=... python benchmarks/decontaminate.py [--unit words]`.

Items are all `test` and `dev` questions of the exam files, and made ones (a passage of general text
and four others as options, 60 to 160 letters of Latin script) for languages without an exam. Of each
language up to 200 are planted in general documents in several ways. Prints, for each script, the share
found, the share of clean text (all general and medical documents) that is marked, and the speed;
and how much of the train questions of the same exams is marked.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from polyclinic.corpus.leaks import decontaminate, exams, leaks
from polyclinic.corpus.normalise import clean_question
from polyclinic.corpus.read import readers
from polyclinic.corpus.tables import DOCUMENTS, ROWS_PER_BATCH
from polyclinic.corpus_section import DecontaminateSection, Source
from polyclinic.languages import all_languages
from polyclinic.records import Document, Question, Turn

MADE = ("zh", "hi", "th", "ko", "lo")
PLANTED = 200  # of each language
ASIDE = 60  # documents of a language that items are made of


def document(name: str, code: str, text: str, source: str = "general", group: str = "") -> Document:
    return Document(name, code, source, "", group or name, (Turn("text", text),), "train")


def read(root: Path, kind: str) -> Iterator[Document]:
    for path in sorted((root / kind).glob("*.jsonl")):
        for line in path.read_text("utf-8").split("\n"):
            if line:
                d = json.loads(line)
                yield document(d["id"], d["language"], d["text"], d["source"], d.get("parallel_id", ""))


def questions(root: Path) -> list[Question]:
    out: list[Question] = []
    for path in sorted((root / "exams").glob("*.jsonl")):
        out += map(clean_question, readers.read(path, Source(path=path.name), readers.to_question))
    return out


def make(code: str, texts: list[str], chance: random.Random, section: DecontaminateSection) -> list[Question]:
    """Return items whose question and options are passages of texts that stand nowhere else."""
    run = exams.lengths(code, DecontaminateSection(units=section.units)).run

    def passage(text: str, low: float, high: float) -> str:
        size = round(run * chance.uniform(low, high))
        begin = chance.randrange(max(1, len(text) - size))
        return text[begin : begin + size]

    out = []
    for number in range(PLANTED):
        options = tuple(passage(chance.choice(texts), 0.3, 0.8) for _ in range(4))
        name = f"made:{code}:{number}"
        asked = passage(texts[number % len(texts)], 0.9, 2.5)
        out.append(clean_question(Question(name, code, "made", "", name, "test", asked, options, (0,))))
    return out


def changed(text: str, chance: random.Random) -> str:
    """Return a text in other case, with other punctuation and more spaces."""
    text = re.sub(r"[.,;:?!]", lambda found: chance.choice(["", " - ", "!", found[0]]), text.upper())
    return text.replace(" ", "  \n")


def edited(text: str, chance: random.Random) -> str:
    """Return a text with one word in fifteen (letter in forty, where there are no spaces) replaced."""
    words = text.split(" ")
    glue, step = (" ", 15) if len(words) > len(text) / 20 else ("", 40)
    units = words if glue else list(text)
    for place in range(chance.randrange(step), len(units), step):
        units[place] = chance.choice(units)
    return glue.join(units)


Plant = Callable[[Question, random.Random], str]
WAYS: dict[str, Plant] = {
    "all of it": lambda q, c: f"{q.question}\n" + "\n".join(q.options),
    "case, punctuation, spacing": lambda q, c: changed(f"{q.question}\n{q.options[q.answers[0]]}", c),
    "question only": lambda q, c: q.question,
    "question and right option": lambda q, c: f"{q.question}\n{q.options[q.answers[0]]}",
    "edited": lambda q, c: edited(q.question, c) + f"\n{q.options[q.answers[0]]}",
}


def plant(items: list[Question], hosts: dict[str, list[str]], chance: random.Random) -> list[tuple[str, Document]]:
    """Return documents named by the item they hold, each with the way it was planted; edited ones are long."""
    out = []
    for way, made in WAYS.items():
        for q in items:
            host = chance.choice(hosts[q.language])
            middle = len(host) // 2
            text = f"{host[:middle]}\n{made(q, chance)}\n{host[middle:]}"
            out.append((way, document(f"{q.source}|{q.id}", q.language, text, group=f"{way}:{q.id}")))
        for q in items:
            if way == "edited":
                out.append(("parallel id", document(f"{q.source}|{q.id}", "eo", "x", group=q.group)))
    return out


def marked(documents: list[Document], folder: Path, section: DecontaminateSection) -> tuple[pa.Table, float]:
    """Return the marks of documents and the processor time of making them."""
    tables, seconds = [], 0.0
    for at in range(0, len(documents), ROWS_PER_BATCH):
        rows = [d.row() for d in documents[at : at + ROWS_PER_BATCH]]
        batch = pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS)
        begun = time.process_time()
        tables.append(decontaminate.mark(batch, folder, section).batch.drop_columns(["turns"]))
        seconds += time.process_time() - begun
    return pa.Table.from_batches(tables), seconds


def script(code: str) -> str:
    return all_languages()[code].script


def measure(root: Path, section: DecontaminateSection, folder: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    general: dict[str, list[Document]] = defaultdict(list)
    for d in read(root, "general"):
        general[d.language].append(d)
    found = questions(root)
    real = [q for q in found if q.split in section.splits]
    items: list[Question] = list(real)
    for code in MADE:
        aside, general[code] = general[code][:ASIDE], general[code][ASIDE:]
        items += make(code, [d.text() for d in aside if len(d.text()) > 200], chance, section)  # noqa: PLR2004
    # Every item gets a parallel id, so that a translation can be planted.
    items = [q if q.group != q.id else Question(**{**as_dict(q), "group": f"parallel:{q.id}"}) for q in items]
    facts = exams.write(items, section, folder)
    print(facts)
    table, _ = marked([d for ds in general.values() for d in ds][:100], folder, section)  # loads the index
    recall(items, {code: [d.text() for d in ds] for code, ds in general.items()}, section, folder, chance)
    for kind in ("general", "text"):
        clean = [d for ds in general.values() for d in ds] if kind == "general" else list(read(root, kind))
        table, seconds = marked(clean, folder, section)
        lost: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for row in table.select(["language", "mark_leak"]).to_pylist():
            total[script(row["language"])] += 1
            lost[script(row["language"])] += bool(row["mark_leak"])
        print(f"{kind}: {len(clean) / seconds:,.0f} documents/s/core; marked, by script:")
        print("  " + ", ".join(f"{name} {lost[name]}/{total[name]}" for name in sorted(total)))
    train = [
        document(q.id, q.language, "\n".join([q.question, *q.options]), q.source) for q in found if q.split == "train"
    ]
    table, _ = marked(train, folder, section)
    lost, total = Counter(), Counter()
    for row in table.select(["source", "language", "mark_leak"]).to_pylist():
        total[row["source"], row["language"]] += 1
        lost[row["source"], row["language"]] += bool(row["mark_leak"])
    print("train questions marked:", ", ".join(f"{' '.join(k)} {lost[k]}/{n}" for k, n in sorted(total.items())))


def as_dict(question: Question) -> dict[str, object]:
    return {name: getattr(question, name) for name in question.__slots__}


def recall(
    items: list[Question],
    hosts: dict[str, list[str]],
    section: DecontaminateSection,
    folder: Path,
    chance: random.Random,
) -> None:
    """Print for each way and script how many of the planted items are found."""
    by_language: dict[str, list[Question]] = defaultdict(list)
    for q in items:
        if q.language in hosts and q.options:
            by_language[q.language].append(q)
    chosen = [q for qs in by_language.values() for q in chance.sample(qs, min(PLANTED, len(qs)))]
    planted = plant(chosen, hosts, chance)
    table, _ = marked([d for _, d in planted], folder, section)
    index = exams.load(folder, section.unit)
    single = index.partner < 0
    alone = set(index.piece_item[single].tolist())
    long = set(index.piece_item[single & (index.pieces.sizes() >= section.units)].tolist())
    names = [f"{row['benchmark']}|{row['id']}" for row in index.items.to_pylist()]
    texts = index.items.to_pylist()
    hits: dict[int, set[str]] = defaultdict(set)
    for leak in leaks.find(table, index.items):
        hits[leak.row].add(names[leak.item])
    done: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    language_of = {name: row["language"] for name, row in zip(names, texts, strict=True)}
    fair = {"question only": {names[i] for i in alone}, "edited": {names[i] for i in long}}
    print(f"found by the question alone: {len(alone)} of {len(names)} items; {len(long)} of {section.units} or more")
    for row, (way, d) in enumerate(planted):
        if d.id not in fair.get(way, {d.id}):
            continue
        place = (way, script(language_of[d.id]))
        total[place] += 1
        done[place] += d.id in hits[row]
    for way in [*WAYS, "parallel id"]:
        cells = [f"{s} {done[way, s] / n:.3f}" for (w, s), n in sorted(total.items()) if w == way]
        number = sum(n for (w, _), n in total.items() if w == way)
        share = sum(n for (w, _), n in done.items() if w == way) / number
        print(f"{way}: {share:.4f} of {number}; " + ", ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unit", choices=["characters", "words"], default="characters")
    parser.add_argument("--units", type=int, default=64)
    given = parser.parse_args()
    section = DecontaminateSection(unit=given.unit, units=given.units)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(os.environ["POLYCLINIC_DATA"]), section, Path(folder))


if __name__ == "__main__":
    main()
