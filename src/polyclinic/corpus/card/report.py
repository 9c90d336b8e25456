"""The data card as a section of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyclinic.corpus.card.card_page import (
    categories_table,
    figures,
    languages_table,
    quality_table,
    sources_table,
    steps_table,
)
from polyclinic.corpus.starter import NOTICE, SOURCE
from polyclinic.families import Preset, load_preset
from polyclinic.markup import Fragment, details, number
from polyclinic.runs import read_json

LEAD = "What the model learned from and was asked, where it comes from, and what was left out and why."


def fragment(folder: Path, packs: Mapping[str, Any] | None = None, preset: Preset | None = None) -> Fragment:
    """Return the section for a built corpus; `packs`, what packing noted, brings the tokens of training."""
    card = read_json(folder / "card.json")
    families = preset or load_preset("balanced")
    html = f"<p>{number(card['rows_in'], 0)} rows were read.</p>"
    if any(s["source"] == SOURCE for s in card["sources"]):
        html += f"<p><strong>{SOURCE}: {NOTICE}</strong></p>"
    html += sources_table(card) + figures(card, families, packs)
    for name, part in (
        ("Documents and questions per language", languages_table(card, families, packs)),
        ("Documents per category", categories_table(card)),
        ("Quality", quality_table(card)),
        ("Dropped, changed, not checked", steps_table(card)),
    ):
        html += details(name, part) if part else ""
    return Fragment("Data card", LEAD, html)
