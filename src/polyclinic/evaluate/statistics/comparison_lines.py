"""A comparison as text for a terminal and as a table for a spreadsheet."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyclinic.evaluate.statistics.tables import as_csv

HEAD = ("", "n", "A", "B", "A - B", "95 %", "A : B", "p", "Holm", "BH", "verdict")


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return a table with a line per language, both means, and who wins where; shares in percent."""
    rows = [*result["languages"], result["macro"], result["micro"]]
    cells = [list(HEAD), *(_cells(r) for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    last = len(HEAD) - 1
    table = [
        "  ".join(
            c.ljust(w) if i in (0, last) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return [*(line.rstrip() for line in table), *_sums(result)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    percent = [f"{100 * row[key]:.1f}" for key in ("a", "b")]
    change, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
    won = f"{row['wins']} : {row['losses']}" if "wins" in row else ""
    p = [_p(row.get(key)) for key in ("holm", "bh")]
    alone = _p(row.get("p", row.get("mcnemar")))  # of means, by clusters
    return [row["name"], f"{row['n']:,}", *percent, change, f"{low} to {high}", won, alone, *p, row["verdict"]]


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004 - below what is printed


def _sums(result: Mapping[str, Any]) -> list[str]:
    total = len(result["languages"])
    out = [
        "A : B are the questions that only A and only B has right.",
        f"A has more right in {result['wins']} of {total} languages, B in {result['losses']}, "
        f"as many in {result['ties']}; shown to be more than luck (Holm, 5 %): "
        f"A {result['shown_wins']}, B {result['shown_losses']}.",
    ]
    for name in ("a", "b"):
        only: Mapping[str, Sequence[str]] = result[f"only_{name}"]
        if only:
            listed = ", ".join(f"{task} {len(ids):,}" for task, ids in only.items())
            out.append(f"left out, since only {name.upper()} has them: {listed}")
    return out


def comparison_csv(result: Mapping[str, Any]) -> str:
    """Return the rows of a comparison as CSV."""
    return as_csv([*result["languages"], result["macro"], result["micro"]])
