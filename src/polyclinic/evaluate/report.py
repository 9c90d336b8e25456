"""How well the model does in each language: the scores section of the report."""

from html import escape
from pathlib import Path
from typing import Any

from polyclinic.languages import language
from polyclinic.markup import Fragment, native, number, percent, table
from polyclinic.runs import read_json

LOSS_LEAD = (
    "Bits per byte of unseen health text: how many bits the model needs to guess each byte, lower is better. The dense "
    "base is the model before experts; the mixture is the same model after training with them. The mixture has seen "
    "more tokens, so the difference is what that training bought, not what experts alone are worth."
)
EXAM_LEAD = (
    "Share of multiple-choice questions answered right. The model never saw them; it is asked in the question's own "
    "language and not told which language it is. Read a score against the chance line: where the interval (95 %) "
    "covers chance, the model has not shown that it knows anything."
)

DENSE_LEAD = (
    "Bits per byte of unseen health text: how many bits the model needs to guess each byte, lower is better. This is "
    "a baseline without experts: the dense base, and the same model trained further on the texts that a mixture would "
    "have been trained on."
)
# What the second model is called, by the name that the evaluate step was given for it.
AFTER = {"mixture": "mixture", "dense": "dense, trained further"}

LUCK = 0.025  # share of 95 % intervals that lie above the truth


def fragments(folder: Path) -> list[Fragment]:
    """Return the sections for an evaluate step."""
    result = read_json(folder / "scores.json")
    return [exams(result), loss(result)]


def loss(result: dict[str, Any]) -> Fragment:
    """Return held-out loss per language, before and after."""
    before, after = (result["loss"][name] for name in result["models"])
    rows = []
    for code in after:
        a, b = before[code]["bits_per_byte"], after[code]["bits_per_byte"]
        entry = language(code)
        rows.append(
            [
                code,
                f"{native(entry)} <small>{escape(entry.name)}</small>",
                number(after[code]["documents"], 0),
                number(a),
                number(b),
                f"{b - a:+.2f}",
            ]
        )
    name = result["models"][-1]
    head = ["code", "language", "texts", "dense base", AFTER.get(name, name), "difference"]
    lead = DENSE_LEAD if name == "dense" else LOSS_LEAD
    return Fragment("How well it predicts unseen text", lead, table(head, rows, text_columns=2))


def exams(result: dict[str, Any]) -> Fragment:
    """Return one row per exam and language for both models, with chance and constant lines."""
    before, after = (result["exams"][name] for name in result["models"])
    rows = [_row(a, b) for a, b in zip(before, after, strict=True)]
    name = AFTER.get(result["models"][-1], result["models"][-1])
    head = ["code", "language", "exam", "n", "dense base", name, "95 % interval", "chance", "constant answer"]
    html = summary(after, name) + table(head, rows, text_columns=3) if rows else "<p>No exam questions in this run.</p>"
    if result["several_answers"]:
        html += f"<p>{result['several_answers']:,} questions with several right answers were not scored.</p>"
    return Fragment("How well it does in each language", EXAM_LEAD, html)


def _row(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    entry = language(after["language"])
    return [
        entry.code,
        f"{native(entry)} <small>{escape(entry.name)}</small>",
        escape(after["exam"]),
        f"{after['n']:,}",
        percent(before["accuracy"]),
        f'<td class="figure score" style="--share:{after["accuracy"]:.3f}">{percent(after["accuracy"])}</td>',
        f"{percent(after['low'])} to {percent(after['high'])}",
        percent(after["chance"]),
        percent(after["constant"]),
    ]


def macro(rows: list[dict[str, Any]], key: str) -> float:
    """Return a figure's plain mean over languages, exams of one language pooled by item."""
    languages: dict[str, list[float]] = {}
    for row in rows:
        total = languages.setdefault(row["language"], [0.0, 0.0])
        total[0] += row[key] * row["n"]
        total[1] += row["n"]
    return sum(value / n for value, n in languages.values()) / len(languages)


def summary(rows: list[dict[str, Any]], name: str = "mixture") -> str:
    """Say in one sentence how many languages beat chance, and the means."""
    beyond = sum(row["low"] > row["chance"] for row in rows)
    means = [percent(macro(rows, key)) for key in ("accuracy", "chance", "constant")]
    return (
        f"<p>{name.capitalize()}, mean over languages: "
        + "{} % (chance {} %, best constant answer {} %). ".format(*means)
        + f"{beyond} of {len(rows)} rows lie above chance by their whole interval; "
        f"by luck alone about {len(rows) * LUCK:.0f} would.</p>"
    )
