"""The data card: what is in a corpus, from where, under which licence, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polyclinic.corpus.card.card_page import as_page, splits_of
from polyclinic.corpus.card.gaps import gaps
from polyclinic.corpus.card.hub_card import as_readme
from polyclinic.corpus.starter import NOTICE, SOURCE
from polyclinic.families import load_preset
from polyclinic.languages import language
from polyclinic.records import Document, Question
from polyclinic.runs import write_bytes, write_json


def write_card(
    folder: Path,
    documents: Iterable[Document],
    questions: Iterable[Question],
    rows_in: int,
    counts: Counter[str],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the card of a corpus folder as JSON, Markdown, HTML, and as the README of a dataset.

    `facts` may hold `wanted` (languages asked for), `steps` (rows in and out of each, and its drops)
    and `quality` (measure -> language -> median).
    """
    card = collect(documents, questions)
    card |= {"rows_in": rows_in, "counts": dict(sorted(counts.items())), **(facts or {})}
    card["gaps"] = gaps(card)
    write_json(folder / "card.json", card)
    text = as_markdown(card)
    write_bytes(folder / "card.md", text.encode())
    write_bytes(folder / "card.html", as_page(card, load_preset("balanced")).encode())
    write_bytes(folder / "README.md", as_readme(card, text).encode())


def collect(documents: Iterable[Document], questions: Iterable[Question]) -> dict[str, Any]:
    """Count documents per split, characters and questions, by language, by source and licence, and by category.

    `kinds` has the documents of each language by category. The `url` of a source is what its documents' have
    in common.
    """
    languages: dict[str, Counter[str]] = {}
    sources: dict[tuple[str, str], Counter[str]] = {}
    categories: dict[str, Counter[str]] = {}
    kinds: dict[str, Counter[str]] = {}
    urls: dict[tuple[str, str], str] = {}
    for d in documents:
        tables = (
            languages.setdefault(d.language, Counter()),
            sources.setdefault((d.source, d.licence), Counter()),
            categories.setdefault(d.category, Counter()),
        )
        size = len(d.text())
        for table in tables:
            table[d.split] += 1
            table["characters"] += size
        kinds.setdefault(d.language, Counter())[d.category] += 1
        if d.url:
            known = urls.setdefault((d.source, d.licence), d.url)
            if known != d.url:
                urls[d.source, d.licence] = _shared(known, d.url)
    for q in questions:
        languages.setdefault(q.language, Counter())["questions"] += 1
        sources.setdefault((q.source, q.licence), Counter())["questions"] += 1
    return {
        "languages": {code: dict(languages[code]) for code in sorted(languages)},
        "sources": [
            {"source": key[0], "licence": key[1], "url": urls.get(key, ""), **sources[key]} for key in sorted(sources)
        ],
        "categories": [{"category": name, **categories[name]} for name in sorted(categories)],
        "kinds": {code: dict(sorted(kinds[code].items())) for code in sorted(kinds)},
    }


def _shared(a: str, b: str) -> str:
    """Return what two addresses begin with, up to a slash."""
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[: a.rfind("/", 0, same) + 1]


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
    if card.get("gaps"):
        lines += ["", "## Known gaps", "", *(f"- {gap}" for gap in card["gaps"])]
    return "\n".join(lines) + "\n"


def _head(names: list[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _cell(text: str) -> str:
    """Return text that cannot end its cell or row."""
    return " ".join(text.split()).replace("|", "\\|")
