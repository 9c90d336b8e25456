"""The data card: what is in a corpus, from where, under which licence, and what was left out."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polyclinic.corpus.starter import NOTICE, SOURCE
from polyclinic.languages import language
from polyclinic.records import Document, Question
from polyclinic.runs import write_bytes, write_json


def write_card(
    folder: Path,
    documents: Iterable[Document],
    questions: Iterable[Question],
    rows_in: int,
    counts: Counter[str],
) -> None:
    """Write `card.json` (for the report) and `card.md` (for people) into a corpus folder."""
    card = collect(documents, questions)
    card |= {"rows_in": rows_in, "counts": dict(sorted(counts.items()))}
    write_json(folder / "card.json", card)
    write_bytes(folder / "card.md", as_markdown(card).encode())


def collect(documents: Iterable[Document], questions: Iterable[Question]) -> dict[str, Any]:
    """Count documents, characters and questions per language, and documents per source and licence."""
    languages: dict[str, Counter[str]] = {}
    sources: dict[tuple[str, str], Counter[str]] = {}
    for d in documents:
        for table in (
            languages.setdefault(d.language, Counter()),
            sources.setdefault((d.source, d.licence), Counter()),
        ):
            table[d.split] += 1
            table["characters"] += len(d.text())
    for q in questions:
        languages.setdefault(q.language, Counter())["questions"] += 1
        sources.setdefault((q.source, q.licence), Counter())["questions"] += 1
    return {
        "languages": {code: dict(languages[code]) for code in sorted(languages)},
        "sources": [{"source": key[0], "licence": key[1], **sources[key]} for key in sorted(sources)],
    }


def as_markdown(card: dict[str, Any]) -> str:
    """Render a card as Markdown tables."""
    lines = ["# Data card", "", f"{card['rows_in']} rows read.", ""]
    lines += [f"{SOURCE}: {NOTICE}", ""] if any(s["source"] == SOURCE for s in card["sources"]) else []
    lines += ["## Languages", ""]
    splits = splits_of(card)
    heads = [split.replace("_", " ") for split in splits]
    lines += _head(["code", "language", *heads, "characters", "questions"])
    for code, row in card["languages"].items():
        cells = [
            code,
            language(code).name,
            *(str(row.get(k, 0)) for k in (*splits, "characters", "questions")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Sources", "", *_head(["source", "licence", *heads, "questions"])]
    for row in card["sources"]:
        cells = [
            _cell(row["source"]),
            _cell(row["licence"]),
            *(str(row.get(k, 0)) for k in (*splits, "questions")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Dropped, changed and not checked", ""]
    lines += [f"- {reason}: {n}" for reason, n in card["counts"].items()] or ["- nothing"]
    return "\n".join(lines) + "\n"


def splits_of(card: dict[str, Any]) -> list[str]:
    """Return the splits that a card counts; validation only where some text was set aside for it."""
    aside = any("validation" in row for row in card["languages"].values())
    return ["train", *(["validation"] if aside else []), "held_out"]


def _head(names: list[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _cell(text: str) -> str:
    """Return text that cannot end its cell or row."""
    return " ".join(text.split()).replace("|", "\\|")
