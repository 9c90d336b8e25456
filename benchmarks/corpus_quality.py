"""What the quality measures find in real text, language by language, and how fast they are.

    POLYCLINIC_DATA=DIR PYTHONPATH=src python benchmarks/corpus_quality.py terms
    POLYCLINIC_DATA=DIR PYTHONPATH=src python benchmarks/corpus_quality.py speed

`terms`: does the density of medical terms part medical text from general text? AUC of running medical sentences,
and of entries of word lists, against 3,000 lines of general text (cut at 300 characters, seed 0).
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from polyclinic.corpus.normalise import clean, normalise
from polyclinic.corpus.quality import quality, terms
from polyclinic.corpus.quality.measure import measure, units_of
from polyclinic.corpus.read import readers
from polyclinic.corpus.tables import DOCUMENTS, batches
from polyclinic.corpus_section import QualitySection, Source

DATA = Path(os.environ["POLYCLINIC_DATA"])
LISTS = ("tico19-terms", "gatitos", "refugee-phrasebook")
DOCUMENT = 1400  # bytes
LINES, LONG_ENOUGH = 3000, 20


def read(path: Path) -> list[tuple[str, str]]:
    """Return source and text of each record of a file, none where there is no file."""
    found = readers.read(path, Source(path="x"), readers.to_document) if path.is_file() else ()
    return [(d.source, clean(d.text())) for d in found]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the share of pairs in which the positive one is higher, equal ones by half."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))


def parting() -> None:
    print("language  sentences  entries  lines   AUC sentences  entries   with a term: sentences  entries  lines")
    for code, found in sorted(terms.load(None).items()):
        medical, general = (read(DATA / kind / f"{code}.jsonl") for kind in ("text", "general"))
        lines = [
            p[:300]
            for source, text in general
            if source not in LISTS
            for p in text.split("\n")
            if len(p) >= LONG_ENOUGH
        ]
        if len(lines) > LINES:
            lines = [lines[i] for i in np.random.default_rng(0).choice(len(lines), LINES, replace=False)]
        groups = [[t for s, t in medical if (s in LISTS) == listed] for listed in (False, True)] + [lines]
        sentences, entries, others = (measure(texts, units_of(code), found.covered)["terms"] for texts in groups)
        shares = [f"{(v > 0).mean():.2f}" if len(v) else "-" for v in (sentences, entries, others)]
        print(code, *map(len, groups), f"{auc(sentences, others):.3f}", f"{auc(entries, others):.3f}", *shares)


def speed() -> None:
    """Print documents of 1.4 kB (file bytes) a CPU second: read, normalise, quality, all; the better of two rounds."""
    total, size = np.zeros(3), 0
    for code in ("en", "hi", "zh", "th", "ar", "ru", "es", "sw"):
        path = DATA / "general" / f"{code}.jsonl"
        best = np.minimum(*(round_of(path) for _ in range(2)))
        total, size = total + best, size + path.stat().st_size
        print(code, (path.stat().st_size / DOCUMENT / np.append(best, best.sum())).round())
    print("all", (size / DOCUMENT / np.append(total, total.sum())).round())


def round_of(path: Path) -> np.ndarray:
    spent, now = np.zeros(3), time.process_time()
    found = readers.read(path, Source(path="x"), readers.to_document)
    for batch in batches(DOCUMENTS, (d.row() for d in found)):
        times = [now, time.process_time()]
        plain = normalise(batch).batch
        times.append(time.process_time())
        quality.mark(plain, QualitySection(), ".")
        now = time.process_time()
        spent += np.diff([*times, now])
    return spent


if __name__ == "__main__":
    {"terms": parting, "speed": speed}[sys.argv[1]]()
