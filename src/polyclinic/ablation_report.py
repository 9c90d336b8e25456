"""What parts of the text are worth, as a section of the report and as lines of the data card."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.languages import language
from polyclinic.markup import Fragment, details, figure, heat, table
from polyclinic.runs import read_json

LEAD = (
    "A small model was tuned on the text of one language alone, then on all text, then on all but one category, for "
    "the same number of steps each. Changes of the loss on unseen text are in nats a token, with 95 % intervals over "
    "documents: below zero is better."
)
FEW = 10  # clusters below which an interval is not to be relied on


def headline(folder: Path) -> list[tuple[str, str]]:
    """Return the figures that stand above everything else."""
    result = read_json(folder / "ablation.json")
    own = _own(result)
    gained = sum(row["high"] < 0 for row in own.values())
    mean = f"{sum(row['change'] for row in own.values()) / len(own):+.2f} nats a token" if own else "not measured"
    helped = [f"{name} in {_won(rows)} of {len(rows)}" for name, rows in result["without"].items()]
    return [
        ("languages whose own text helps them", f"{gained} of {len(own)}, on average {mean}"),
        ("categories whose loss would be felt", "; ".join(helped) or "fewer than two categories"),
    ]


def _own(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return what tuning on each language alone does in that language, where there is held-out text of it."""
    return {code: rows[code] for code, rows in result["only"].items() if code in rows}


def _won(rows: Mapping[str, Mapping[str, float]]) -> int:
    return sum(row["low"] > 0 for row in rows.values())


def fragment(folder: Path) -> Fragment:
    """Return the section for a finished ablation."""
    result = read_json(folder / "ablation.json")
    own = dict(sorted(_own(result).items(), key=lambda pair: pair[1]["change"]))
    drawn = {language(code).name: (row["change"], row["low"], row["high"]) for code, row in own.items()}
    html = ""
    if drawn:
        svg = figures.intervals(drawn, "change of loss, nats a token")
        html = figure(svg, "Each language after tuning on its own text alone, against the base.")
    html += details("Languages in figures", table(*_languages(result), text_columns=2))
    for name, rows in result["without"].items():
        html += details(f"Without {name}", table(*_category(rows), text_columns=2))
    html += details("Who helps whom", _matrix(result["only"]))
    return Fragment("What each text is worth", LEAD, html)


def _languages(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for code, alone in result["only"].items():
        others = [row["change"] for other, row in alone.items() if other != code]
        mean = f"{sum(others) / len(others):+.3f}" if others else "&ndash;"
        cells = [_told(alone.get(code)), mean, _told(result["all"].get(code))]
        rows.append([escape(code), escape(language(code).name), *cells, _clusters(alone.get(code))])
    heads = ["own text alone", "the other languages then, mean", "all text", "held-out texts"]
    return ["code", "language", *heads], rows


def _category(rows: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    found = [
        [escape(code), escape(language(code).name), _told(row), _clusters(row)]
        for code, row in sorted(rows.items(), key=lambda pair: -pair[1]["change"])
    ]
    return ["code", "language", "change against all text", "held-out texts"], found


def _told(row: Mapping[str, float] | None) -> str:
    if row is None:
        return "no held-out text"
    return f"{row['change']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def _clusters(row: Mapping[str, float] | None) -> str:
    if row is None:
        return "0"
    return f"{row['clusters']:.0f}" + (" (few)" if row["clusters"] < FEW else "")


def _matrix(only: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return how much of its own gain each language gives to each other one, shaded, in percent."""
    codes = [code for code in only if code in only[code]]
    rows = []
    for tuned in codes:
        cells = [heat(_share(only, tuned, scored), tuned == scored) for scored in codes]
        rows.append([escape(tuned), *cells])
    caption = "Row: the language tuned on. Cell: its gain in the column's language, in percent of that language's own."
    return table(["", *map(escape, codes)], rows, caption)


def _share(only: Mapping[str, Mapping[str, Mapping[str, float]]], tuned: str, scored: str) -> float:
    own, given = only[scored][scored]["change"], only[tuned].get(scored, {}).get("change", 0.0)
    return min(1.0, max(0.0, given / own)) if own < 0 else 0.0
