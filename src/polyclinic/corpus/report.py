"""The data card as a section of the report."""

from html import escape
from pathlib import Path

from polyclinic.corpus.card import splits_of
from polyclinic.corpus.starter import NOTICE, SOURCE
from polyclinic.markup import Fragment, details, number, table
from polyclinic.runs import read_json

LEAD = "What the model learned from and was asked, where it comes from, and what was left out and why."


def fragment(folder: Path) -> Fragment:
    """Return the section for a built corpus."""
    card = read_json(folder / "card.json")
    splits = splits_of(card)
    heads = [split.replace("_", " ") for split in splits]
    sources = table(
        ["source", "licence", *heads, "questions"],
        [
            [
                escape(s["source"]),
                escape(s["licence"]),
                *(f"{s.get(k, 0):,}" for k in (*splits, "questions")),
            ]
            for s in card["sources"]
        ],
        text_columns=2,
    )
    keys = (*splits, "characters", "questions")
    languages = table(
        ["language", *heads, "characters", "questions"],
        [[code, *(f"{row.get(k, 0):,}" for k in keys)] for code, row in card["languages"].items()],
    )
    counts = table(["what happened", "rows"], [[escape(k), f"{v:,}"] for k, v in card["counts"].items()])
    rows = f"<p>{number(card['rows_in'], 0)} rows were read.</p>"
    if any(s["source"] == SOURCE for s in card["sources"]):
        rows += f"<p><strong>{SOURCE}: {NOTICE}</strong></p>"
    folded = details("Documents and questions per language", languages) + details(
        "Dropped, changed, not checked", counts
    )
    return Fragment("Data card", LEAD, rows + sources + folded)
