"""The second stage as a section of the report: what each family's expert learned on its own text."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.markup import Fragment, figure, number, table
from polyclinic.runs import read_json
from polyclinic.train.report import read_log

LEAD = (
    "After the mixture had been trained on everything, each family's expert was trained alone on text of its own "
    "languages, all other weights standing still. Every expert started from the same mixture."
)


def fragment(run: Path, families: Mapping[str, Any]) -> Fragment:
    """Return the section for a finished `specialise` step."""
    names, curves, rows = [family["name"] for family in families["families"]], {}, []
    for expert in read_json(run / "specialise" / "polyclinic.json")["specialised"]:
        log = read_log(run / f"specialise-{expert}")
        curves[names[expert]] = [(line["step"], line["loss"]) for line in log]
        codes = sorted({code for line in log for code in line["languages"]})
        ends = [number(log[0]["loss"]), number(log[-1]["loss"])]
        rows.append([escape(names[expert]), " ".join(codes), number(log[-1]["step"], 0), *ends])
    html = figure(figures.lines(curves, "step", "loss"), "Training loss of each expert, alone.")
    head = ["family", "languages", "steps", "first loss", "last loss"]
    return Fragment("Each family on its own", LEAD, html + table(head, rows, text_columns=2))
