"""The rows of a sheet by level, and what they say in one sentence."""

from collections.abc import Mapping
from typing import Any

from polyclinic.evaluate.statistics.tables import ABOVE
from polyclinic.markup import percent

Sheet = Mapping[str, Any]


def of_level(sheet: Sheet, level: str) -> list[dict[str, Any]]:
    """Return the rows of one level: task, exam_language, language, family, tier, macro, micro."""
    return [row for row in sheet["rows"] if row["level"] == level]


def interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the wider of Wilson's interval and the bootstrap over clusters, which has no width where items agree."""
    lows, highs = (
        [row[f"{kind}_{end}"] for kind in ("wilson", "boot") if row.get(f"{kind}_{end}") is not None]
        for end in ("low", "high")
    )
    return min(lows), max(highs)


def macro(sheet: Sheet) -> dict[str, Any] | None:
    """Return the mean over languages, None where nothing was asked."""
    return next(iter(of_level(sheet, "macro")), None)


def micro(sheet: Sheet) -> dict[str, Any] | None:
    """Return the share of all items, None where nothing was asked."""
    return next(iter(of_level(sheet, "micro")), None)


def summary(sheet: Sheet) -> str:
    """Say what a sheet shows: its mean beside chance and the best constant answer, and how many languages beat luck."""
    over = macro(sheet)
    if over is None:
        return f"{sheet['name']}: nothing was asked but derived questions."
    rows = of_level(sheet, "language")
    beyond = sum(row["verdict"] == ABOVE for row in rows)
    means = [percent(x) for x in (over["accuracy"], *interval(over), over["chance"], over["constant"])]
    return (
        f"{sheet['name']}, mean over {len(rows)} languages: "
        + "{} % ({} to {}); chance {} %, best constant answers {} %: ".format(*means)
        + f"{over['verdict']}. {beyond} of {len(rows)} languages are above chance by more than luck."
    )


def cards(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the figures that stand above everything else: of each sheet its mean beside chance."""
    out = []
    for sheet in result["sheets"]:
        over = macro(sheet)
        if over is not None:
            told = f"{percent(over['accuracy'])} % (chance {percent(over['chance'])})"
            out.append((f"{sheet['name']}, mean over languages", told))
    return out
