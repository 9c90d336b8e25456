"""The view with families forced, what an expert is worth, and where a dense model would take experts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polyclinic import figures
from polyclinic.analyse.report.facts import Facts, label, ordered, pair, spread
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Cell, Code, Part, Plate
from polyclinic.analyse.report.strokes import Curve, curves

FORCED_LEAD = (
    "The same text with every token told its family. Expert and language are then tied by construction, so nothing "
    "above rests on it; what counts is how often the router would have picked the family's expert unforced."
)
CAUSAL_LEAD = (
    "Where tokens go is not what an expert is worth. Here routing is changed and the loss of the same texts measured "
    "again: above 0 the change does harm. It says nothing of a model that was trained without the expert."
)
DEPTH_LEAD = (
    "A dense model has no experts, but its languages part in some layers more than in others. Experts placed there "
    "were not shown to be better: that takes a training."
)


def forced(facts: Facts) -> Part:
    """Return the share of tokens whose own expert is picked unforced, beside the forced view."""
    shares = facts["forced"]["own_expert_unforced"]
    own = facts["family"]["own_expert"]
    codes = [code for code in ordered(facts, list(shares)) if code in own]
    drawn = {}
    for code in codes:
        mean = own[code]["mean"]
        drawn[label(code)] = (shares[code], *(mean["interval"] or (shares[code], shares[code])))
    chance = facts["family"]["chance"]
    plate = Plate(
        "forced",
        "The own family's expert, had it not been forced",
        f"It is among the picks of {spread([shares[code] for code in codes])} of a language's tokens; blind picks "
        f"would reach {chance:.3f}.",
        "A dot is a language's share of tokens with its 95 % interval over documents; the upright mark is chance.",
        facts["forced"]["tokens"],
        "tokens",
        figures.Picture(figures.drawn_intervals(drawn, "share of tokens", dict.fromkeys(drawn, chance))),
        ["language", "n", "unforced", "low", "high", "by chance"],
        [[Code(c), own[c]["n"], shares[c], *pair(own[c]["mean"]["interval"]), chance] for c in codes],
    )
    return Part("With the family forced, apart from all others", FORCED_LEAD, [plate])


def causal(facts: Facts, found: Mapping[str, Any]) -> Part:
    """Return the matrix of interventions by languages."""
    codes = ordered(facts, list(found["languages"]))
    rows = found["rows"]
    values = [[_shown(row["change"][code]) for code in codes] for row in rows]
    names = [_name(row) for row in rows]
    worst = max(rows, key=lambda row: max(row["change"][code]["change"] for code in codes))
    most = max(worst["change"][code]["change"] for code in codes)
    tokens = sum(one["tokens"] for one in found["languages"].values())
    listed: list[list[Cell]] = [
        [
            *(_name(row), Code(code), found["languages"][code]["tokens"], row["change"][code]["change"]),
            *(row["change"][code]["low"], row["change"][code]["high"], row["change"][code]["clusters"]),
        ]
        for row in sorted(rows, key=_harm, reverse=True)
        for code in codes
    ]
    left = f"<p>Left out: {escape(', '.join(found['left_out']))}.</p>" if found["left_out"] else ""
    plate = Plate(
        "causal",
        "Change of loss by intervention and language",
        f"The largest change is {most:.3f} nats per token: {_name(worst)}.",
        "Each row is a change of routing, each column a language; blue raises the loss, orange lowers it, and a cell "
        "whose 95 % interval covers 0 is blank. With many cells 1 in 20 misses 0 by chance.",
        tokens,
        "tokens",
        heats([Panel("", values)], names, [label(code) for code in codes], "", "nats per token"),
        ["intervention", "language", "n", "change", "low", "high", "documents"],
        listed,
    )
    return Part("What an expert is worth", CAUSAL_LEAD, [plate], left)


def _shown(cell: Mapping[str, float]) -> float | None:
    return cell["change"] if cell["low"] > 0 or cell["high"] < 0 else None


def _harm(row: Mapping[str, Any]) -> float:
    return float(max(abs(cell["change"]) for cell in row["change"].values()))


def _name(row: Mapping[str, Any]) -> str:
    if row["kind"] == "drop":
        return f"drop {row['expert']}, " + ("all layers" if row["layer"] == "all" else f"layer {row['layer']}")
    if row["kind"] == "keep":
        return f"keep top {row['num']} of {row['language']}"
    return f"force {row['expert']}" if row["kind"] == "family" else "force own family"


def depth(found: Mapping[str, Any]) -> Part:
    """Return separation by layer of a dense model, and the recommendation."""
    rows: Sequence[Mapping[str, Any]] = found["layers"]
    bands = [(r["low"], r["high"]) if "low" in r else None for r in rows]
    curve = Curve([r["layer"] for r in rows], [r["separation"] for r in rows], bands)
    one = found["recommended"]
    told = "No rise towards the output explains a place for experts."
    if one["last_layers"]:
        within = f" (95 % {one['low']} to {one['high']})" if "low" in one else ""
        told = f"It recommends the last {one['last_layers']} layers{within}, a rise of {one['rise']:.3f}."
    plate = Plate(
        "depth",
        "Separation of languages by layer of the dense model",
        told,
        "0 is a layer where language makes no difference, 1 one that shares nothing; the band is the 95 % interval.",
        sum(language["tokens"] for language in found["languages"].values()),
        "tokens",
        curves({"separation": {"": curve}}, "layer"),
        list(rows[0]),
        [list(r.values()) for r in rows],
    )
    return Part("Where to place experts", DEPTH_LEAD, [plate])
