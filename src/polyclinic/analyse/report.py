"""Which expert serves which language: the routing section of the report."""

from html import escape
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.languages import language
from polyclinic.markup import Fragment, figure, heat, native, number, percent, table
from polyclinic.runs import read_json

MAP_LEAD = (
    "Each row is a language, each column an expert. A figure is the share (in percent) of the language's routing picks "
    "that went to this expert in unseen text, with the model choosing freely: it was not told the language. The framed "
    "cell is the expert of the language's own family. With {top} picks per token an expert can reach at most {most} %."
)
INFORMATION_LEAD = (
    "How much a token's expert tells about its language, in nats, layer by layer. Counting alone makes this look "
    "larger than it is, so the same figure with languages shuffled over documents is taken off."
)


def fragments(folder: Path) -> list[Fragment]:
    """Return the sections for an analyse step."""
    result = read_json(folder / "routing.json")
    return [routing_map(result), information(result)]


def routing_map(result: dict[str, Any]) -> Fragment:
    """Return the table of languages by experts, one table per sparse layer."""
    names = [f["name"] for f in result["families"]]
    key = ", ".join(f"<b>{i}</b>&nbsp;{escape(name)}" for i, name in enumerate(names))
    html = f"<p>Experts: {key}.</p>" if names else ""
    ordered = sorted(result["shares"], key=lambda r: (result["expert_of"].get(r["language"], -1), r["language"]))
    head = ["code", "language", "own family", "tokens", *map(str, range(result["num_experts"]))]
    for position, layer in enumerate(result["layers_of"]):
        rows = [_row(row["language"], row["layers"][position], result, names) for row in ordered]
        html += table(head, rows, f"Layer {layer}", text_columns=3)
    most = 100 // result["top_k"]
    return Fragment("Which expert serves which language", MAP_LEAD.format(top=result["top_k"], most=most), html)


def _row(code: str, shares: list[float], result: dict[str, Any], names: list[str]) -> list[str]:
    entry = language(code)
    own = result["expert_of"].get(entry.code)
    cells = [heat(share / result["top_k"], i == own) for i, share in enumerate(shares)]
    family = "&ndash;" if own is None else f"{own} {escape(names[own])}"
    return [
        entry.code,
        f"{native(entry)} <small>{escape(entry.name)}</small>",
        family,
        f"{result['tokens_of'][entry.code]:,}",
        *cells,
    ]


def of_language(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return I(E;L) of the first pick, one object a layer."""
    found: list[dict[str, Any]] = result["information"]["first_pick"]["I(E;L)"]["layers"]
    return found


def information(result: dict[str, Any]) -> Fragment:
    """Return the information per layer, its null and what it means."""
    head = ["layer", "estimate", "by chance", "corrected", "p", "of the most possible"]
    layers = of_language(result)
    rows = [
        [
            str(r["layer"]),
            number(r["estimate"], 3),
            number(r["null"], 3),
            number(r["estimate"] - r["null"], 3),
            f"{r['p_value']:.3f}",
            f"{percent(r['score'])} %",
        ]
        for r in layers
    ]
    html = table(head, rows)
    if len(rows) > 1:
        curves = {
            "corrected": [(r["layer"], r["estimate"] - r["null"]) for r in layers],
            "by chance": [(r["layer"], r["null"]) for r in layers],
        }
        html += figure(figures.lines(curves, "layer", "nats", marks=True), "Information between expert and language.")
    own = result["own_expert"]
    if not own:  # a mixture without families
        return Fragment("Is the routing about language?", INFORMATION_LEAD, html)
    mean = sum(own.values()) / len(own)
    guess = result["top_k"] / result["num_experts"]
    html += (
        f"<p>Left free, a token's own family expert is among its picks for {percent(mean)} % of tokens (mean over "
        f"languages); blind picks would reach {percent(guess)} %. Only the last layers hold experts here, so nothing "
        "follows about depth: such claims need a model with experts in every layer.</p>"
    )
    return Fragment("Is the routing about language?", INFORMATION_LEAD, html)
