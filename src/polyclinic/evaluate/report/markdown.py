"""The scores as Markdown for a model card, every figure with what it was measured under."""

from collections.abc import Mapping
from typing import Any

from polyclinic.evaluate.report.rows import interval, macro, micro, of_level, summary
from polyclinic.languages import language
from polyclinic.markup import percent

HEAD = (
    "| language | n | accuracy | 95 % interval | chance | best constant | verdict |",
    "|---|--:|--:|--:|--:|--:|---|",
)


def card(result: Mapping[str, Any]) -> str:
    """Return a section of a model card: the protocol, the means and the languages of each sheet."""
    lines = ["## Medical exams", "", "Measured with Polyclinic. A score is not a licence to give advice.", ""]
    for sheet in result["sheets"]:
        lines += [f"### {sheet['name']}", "", summary(sheet), "", _protocol(sheet["protocol"]), "", *HEAD]
        lines += [_line(row, language(row["name"]).name) for row in of_level(sheet, "language")]
        means = ((macro(sheet), "**macro over languages**"), (micro(sheet), "**micro over items**"))
        lines += [*(_line(row, name) for row, name in means if row), ""]
    return "\n".join(lines)


def _line(row: Mapping[str, Any], name: str) -> str:
    figures = [percent(x) for x in (row["accuracy"], *interval(row), row["chance"], row["constant"])]
    cells = [name, f"{row['n']:,}", figures[0], f"{figures[1]} to {figures[2]}", *figures[3:], row["verdict"]]
    return "| " + " | ".join(cells) + " |"


def _protocol(facts: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in facts.items() if value not in (None, False))
    return f"Protocol: {told}."


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return the scores as lines for a terminal: a line per exam and language, then what each sheet shows."""
    out = []
    for sheet in result["sheets"]:
        out.append(sheet["name"])
        for row in of_level(sheet, "exam_language"):
            figures = [percent(x) for x in (row["accuracy"], *interval(row), row["chance"], row["unparsed"])]
            told = "{:>5} % ({} to {}), chance {}, unparsed {}".format(*figures)
            out.append(f"  {row['language']:<4} {row['exam']:<22} n {row['n']:>5}  {told}  {row['verdict']}")
        out.append(summary(sheet))
    for name, rows in result["loss"].items():
        out += [f"{name}  {code:<4} bits per byte {row['bits_per_byte']:.3f}" for code, row in rows.items()]
    return out
