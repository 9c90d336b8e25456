"""Which expert serves which language and which family, one panel a layer."""

from html import escape
from typing import Any

from polyclinic.analyse.report.facts import TOKENS, Facts, experts, label, ordered, spread
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Code, Part, Plate, cell
from polyclinic.markup import heat, table

LEAD = (
    "A figure is the share of the language's tokens that have this expert among their {top} picks in unseen text, with "
    "the model choosing freely: it was not told the language. Shares of a language add up to {top} over the experts "
    "of a layer."
)


def part(facts: Facts) -> Part:
    """Return languages by experts, and families by experts where there are families."""
    html = ""
    if facts["families"]:
        key = ", ".join(f"<b>{i}</b>&nbsp;{escape(family['name'])}" for i, family in enumerate(facts["families"]))
        html = f"<p>Experts and their families: {key}.</p>"
    plates = [_languages(facts), *([_families(facts)] if facts["family"] else [])]
    return Part("Which expert serves which language", LEAD.format(top=facts["top_k"]), plates, html)


def _languages(facts: Facts) -> Plate:
    found = {row["language"]: row for row in facts["shares"]}
    codes, own = ordered(facts, list(found)), facts["expert_of"]
    framed = [(i, own[code]) for i, code in enumerate(codes) if code in own]
    panels = [
        Panel(f"layer {layer}", [found[code]["layers"][place] for code in codes], framed)
        for place, layer in enumerate(facts["layers_of"])
    ]
    most = spread([max(found[code]["layers"][-1]) for code in codes])
    rows: list[list[Any]] = [
        [layer, Code(code), own.get(code), found[code]["n"], *found[code]["layers"][place]]
        for place, layer in enumerate(facts["layers_of"])
        for code in codes
    ]
    framing = " The framed cell is the expert of the language's own family." if framed else ""
    return Plate(
        "language_expert",
        "Languages by experts",
        f"In layer {facts['layers_of'][-1]} the expert that a language uses most has {most} of its tokens.",
        f"One panel a layer, a row a language, relatives together; a stronger cell serves more of the tokens.{framing}",
        facts["tokens"],
        TOKENS,
        heats(panels, [label(code) for code in codes], experts(facts), "expert", "of the tokens"),
        ["layer", "language", "own expert", "n", *experts(facts)],
        rows,
        _tables(facts, rows),
    )


def _tables(facts: Facts, rows: list[list[Any]]) -> str:
    """Return a table a layer, in percent, with the own family's expert framed."""
    html = ""
    head = ["language", "own family", "tokens", *map(str, range(facts["num_experts"]))]
    for layer in facts["layers_of"]:
        body = []
        for _, code, own, tokens, *shares in (row for row in rows if row[0] == layer):
            family = "&ndash;" if own is None else f"{own} {escape(facts['families'][own]['name'])}"
            cells = [heat(share, i == own) for i, share in enumerate(shares)]
            body.append([cell(code), family, cell(tokens), *cells])
        html += table(head, body, f"Layer {layer}, percent of tokens", text_columns=2)
    return html


def _families(facts: Facts) -> Plate:
    rows = facts["family"]["shares"]
    own = {family["name"]: i for i, family in enumerate(facts["families"])}
    panels = [
        Panel(f"layer {layer}", [r["layers"][place] for r in rows], [(i, own[r["family"]]) for i, r in enumerate(rows)])
        for place, layer in enumerate(facts["layers_of"])
    ]
    overall = facts["family"]["own_expert_of_all"]
    says = "No language here has a family."
    if overall:
        says = (
            f"Left free, a token's own family expert is among its picks for {overall['mean']['share']:.3f} of tokens; "
            f"blind picks would reach {facts['family']['chance']:.3f}."
        )
    return Plate(
        "family_expert",
        "Families by experts",
        says,
        "One panel a layer, a row a family of languages; the framed cell is the family's own expert.",
        sum(r["n"] for r in rows),
        TOKENS,
        heats(panels, [r["family"] for r in rows], experts(facts), "expert", "of the tokens"),
        ["layer", "family", "n", *experts(facts)],
        [
            [layer, r["family"], r["n"], *r["layers"][place]]
            for place, layer in enumerate(facts["layers_of"])
            for r in rows
        ],
    )
