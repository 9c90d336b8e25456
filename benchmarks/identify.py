"""Figures of the language identifier: `python benchmarks/identify.py DATA [--model FILE] [--only PART]`.

DATA holds `general/*.jsonl`, of which the held-out part is measured, and `text/*.jsonl`, which no model
of ours was trained on. PART is recall, rule, short or speed. Tables are Markdown.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from polyclinic.corpus import starter
from polyclinic.corpus.identify.identify import BUILTIN, Identifier, detector
from polyclinic.corpus.identify.train_identifier import hold_out
from polyclinic.corpus.read import readers
from polyclinic.corpus_section import Source
from polyclinic.families import fifty
from polyclinic.records import Document

WINDOW, AT_LEAST, MOST = 300, 40, 200  # characters, characters, windows or sentences of a language
GROUP = {"hr": "bs", "sr": "bs"}
KILOBYTE = range(700, 1401)  # bytes
WORD_LISTS = ("tico19", "tico19-terms", "gatitos", "refugee-phrasebook")
Texts = dict[str, list[str]]


def documents(folder: Path) -> list[Document]:
    """Read every record of a folder."""
    files = sorted(folder.glob("*.jsonl"))
    return [d for p in files for d in readers.read(p, Source(path=p.name), readers.to_document)]


def windows(text: str) -> list[str]:
    """Cut a text into windows at spaces."""
    out, start = [], 0
    while start < len(text):
        piece = text[start : start + WINDOW]
        end = piece.rfind(" ")
        piece = piece[:end] if start + WINDOW < len(text) and end > WINDOW // 2 else piece
        out.append(piece)
        start += len(piece)
    return [piece for piece in out if len(piece) >= AT_LEAST]


def some(texts: Iterable[tuple[str, str]], most: int = MOST) -> Texts:
    """Choose at most so many texts of each language, always the same."""
    found: Texts = defaultdict(list)
    for code, text in texts:
        found[code].append(text)
    draw = random.Random(1)  # noqa: S311
    return {code: draw.sample(t, most) if len(t) > most else t for code, t in sorted(found.items())}


def whole(given: dict[str, Texts], identifier: Identifier) -> None:
    """Print recall and precision for each language of each set of texts."""
    columns, means = [], []
    for texts in given.values():
        right, said, there = Counter(), Counter(), Counter()
        for code, pieces in texts.items():
            for piece in pieces:
                finding = identifier.detector.find(piece, "")
                found = GROUP.get(finding.found, finding.found) if finding else "none"
                true = GROUP.get(code, code)
                there[code] += 1
                right[code] += found == true
                said[found] += 1
        of_group = Counter[str]()
        for code, number in right.items():
            of_group[GROUP.get(code, code)] += number
        column = {
            c: (there[c], right[c] / there[c], of_group[g] / max(said[g], 1)) for c in there for g in [GROUP.get(c, c)]
        }
        columns.append(column)
        means.append([sum(v[i] for v in column.values()) / len(column) for i in (1, 2)])
    print(f"| language | {' | '.join(f'{n}: texts | recall | precision' for n in given)} |")
    print("|---|" + "---|---|---|" * len(given))
    for code in fifty():
        cells = [f"{c[code][0]} | {c[code][1]:.3f} | {c[code][2]:.3f}" if code in c else "- | - | -" for c in columns]
        print(f"| {code} | {' | '.join(cells)} |")
    print(
        "| mean | "
        + " | ".join(f"{len(c)} languages | {m[0]:.4f} | {m[1]:.4f}" for c, m in zip(columns, means, strict=True))
        + " |"
    )


def rule(given: dict[str, Texts], identifier: Identifier) -> None:
    """Print what the rule of the step drops of text that is as declared, and finds of text that is not."""
    print("| texts | languages | dropped, mean | dropped, most | strangers dropped, mean | least |")
    print("|---|---|---|---|---|---|")
    draw = random.Random(2)  # noqa: S311
    for name, texts in given.items():
        lost = {c: share(identifier.verdict(t, c) for t in pieces) for c, pieces in texts.items()}
        caught = {}
        for code in texts:
            others = [o for o in texts if GROUP.get(o, o) != GROUP.get(code, code)]
            strangers = [draw.choice(texts[draw.choice(others)]) for _ in range(100)]
            caught[code] = share(identifier.verdict(t, code) for t in strangers)
        most, least = max(lost, key=lost.__getitem__), min(caught, key=caught.__getitem__)
        print(
            f"| {name} | {len(texts)} | {sum(lost.values()) / len(lost):.4f} | {lost[most]:.3f} ({most})"
            f" | {sum(caught.values()) / len(caught):.4f} | {caught[least]:.2f} ({least}) |"
        )
        print("  dropped at all:", {c: round(v, 3) for c, v in lost.items() if v}, file=sys.stderr)


def share(verdicts: Iterable[str]) -> float:
    """Return the share of verdicts that would drop a text."""
    found = [v.startswith(("looks like", "in script")) for v in verdicts]
    return sum(found) / len(found)


def speed(texts: Texts, identifier: Identifier) -> None:
    """Print documents a second of CPU, each declared rightly, of about 1 kB."""
    pieces = [(code, t) for code, found in texts.items() for t in found]
    times = []
    for _ in range(3):
        start = time.process_time()
        for code, text in pieces:
            identifier.verdict(text, code)
        times.append(time.process_time() - start)
    size = sum(len(t.encode()) for _, t in pieces) / len(pieces)
    print(f"{len(pieces) / min(times):.0f} documents/s/core of {size:.0f} bytes, best of 3")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    start = time.process_time()
    identifier = Identifier(detector(asked.model, fifty()))
    identifier.verdict("to load what is loaded at first use", "en")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"loaded in {time.process_time() - start:.2f} s of CPU, {memory} MB at most in the process")
    _, held = hold_out(documents(asked.data / "general"), 0.2)
    text = documents(asked.data / "text")
    sets = {
        "held-out windows": some((d.language, w) for d in held for w in windows(d.text())),
        "TICO-19": some(((d.language, d.text()) for d in text if d.source == "tico19"), 500),
        "other medical text": some(
            (d.language, w) for d in text if d.source not in WORD_LISTS for w in windows(d.text())
        ),
        "starter sentences": some((d.language, t.content) for d in starter.documents() for t in d.turns),
    }
    if asked.only in ("", "recall"):
        whole(sets, identifier)
    longer = some((d.language, d.text()) for d in held if len(d.text()) >= 2 * AT_LEAST)
    if asked.only in ("", "rule"):
        rule({"held-out documents": longer, **sets}, identifier)
    if asked.only in ("", "short"):
        for length in (10, 15, 20, 30, 40, 80):
            cut = {c: [t[40 : 40 + length] for t in texts] for c, texts in sets["held-out windows"].items()}
            rule({f"held-out, {length} characters": cut}, identifier)
    if asked.only in ("", "speed"):
        speed({c: [t for t in texts if len(t.encode()) in KILOBYTE] for c, texts in longer.items()}, identifier)


if __name__ == "__main__":
    main()
