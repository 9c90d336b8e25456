"""Routing along a text, experts picked together, the tokens most specific to an expert, and how early it settles."""

from typing import Any

from polyclinic.analyse.report.facts import TOKENS, Facts, experts, layers, spread
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Code, Part, Plate, Word
from polyclinic.analyse.report.strokes import Curve, curves

LEAD = (
    "Whether routing changes along a text, which experts are picked together, and which tokens belong to one expert "
    "more than to the others."
)
PAIRS, WORDS = 3, 5  # shown of each layer, and of each expert
FULL = 64  # experts of all layers, above which fewer words are shown


def part(facts: Facts) -> Part:
    """Return position, co-activation, specific tokens, and saturation where there is one."""
    plates = [_position(facts), _together(facts), _specific(facts)]
    if facts.get("saturation"):
        plates.append(_saturation(facts))
    return Part("What experts take", LEAD, plates)


def _position(facts: Facts) -> Plate:
    rows = facts["position"]["layers"]
    deciles = [str(i + 1) for i in range(len(rows[0]["distance"]))]
    return Plate(
        "position",
        "Routing along a text",
        f"The distance of a tenth of the texts from the whole is {spread([v for r in rows for v in r['distance']])}.",
        "Each row is a layer, each column a tenth of the way through a text; a strong cell is routed unlike the rest. "
        "Compare with chance in the table: tokens of one text are alike, so true chance is higher than that.",
        facts["position"]["n"],
        TOKENS,
        heats([Panel("", [r["distance"] for r in rows])], layers(facts), deciles, "tenth of the text", "distance"),
        ["layer", "tenth", "n", "distance", "by chance"],
        [
            [r["layer"], i + 1, r["n"][i], r["distance"][i], r["by_chance"][i]]
            for r in rows
            for i in range(len(deciles))
        ],
    )


def _together(facts: Facts) -> Plate:
    rows = facts["coactivation"]["layers"]
    there = [r for r in rows if r["distance"] is not None]
    names = experts(facts)
    told = "With one pick a token no experts are picked together."
    if there:
        told = f"The distance from picks that do not mind each other is {spread([r['distance'] for r in there])}."
    line = Curve([r["layer"] for r in there], [r["distance"] for r in there], [None] * len(there))
    pairs: list[list[Any]] = [
        [r["layer"], names[p["one"]], names[p["other"]], p["n"], p["share"], p["independent"], p["lift"]]
        for r in rows
        for p in r["pairs"][:PAIRS]
    ]
    return Plate(
        "coactivation",
        "Experts that are picked together",
        told,
        "0 is a layer whose picks fall together as their loads would have it, 1 one where they never do; the table has "
        "the pairs furthest above that.",
        facts["coactivation"]["n"],
        TOKENS,
        curves({"distance from independence": {"": line}}, "layer"),
        ["layer", "expert", "other expert", "n", "share of the first's tokens", "if independent", "lift"],
        pairs,
    )


def _specific(facts: Facts) -> Plate:
    names = experts(facts)
    found = facts["specific"]["layers"]
    tops = [[max((w["log_odds"] for w in listed), default=None) for listed in layer["experts"]] for layer in found]
    shown = WORDS if len(found) * len(names) <= FULL else 2
    rows: list[list[Any]] = [
        [
            *(layer["layer"], names[i], Word(w.get("text"), w["language"])),
            *(Code(w["language"]) if w["language"] else None, w["id"], w["count"], w["n"], w["lift"], w["log_odds"]),
        ]
        for layer in found
        for i, listed in enumerate(layer["experts"])
        for w in listed[:shown]
    ]
    return Plate(
        "specific",
        "The token most specific to each expert",
        f"The log odds of an expert's first token are {spread([v for row in tops for v in row])} nats.",
        f"A strong cell is an expert with a token that goes to it far more often than others do; the table has the "
        f"first {shown} of each, a blank in a token shown as \u2423.",
        facts["specific"]["n"],
        TOKENS,
        heats([Panel("", tops)], layers(facts), names, "expert", "nats"),
        ["layer", "expert", "token", "mostly", "id", "at this expert", "n", "lift", "log odds"],
        rows,
    )


def _saturation(facts: Facts) -> Plate:
    found = facts["saturation"]
    names = list(found["checkpoints"])
    grid = [found["checkpoints"][name]["overlap"] for name in names]
    first = [found["checkpoints"][name]["same_first"] for name in names]
    panels = [Panel("picks shared", grid), Panel("same first pick", first)]
    return Plate(
        "saturation",
        "How early routing settles",
        f"{names[0]} shares {spread(grid[0])} of its picks with {found['last']}; blind picks would share "
        f"{found['by_chance']['overlap']:.3f}.",
        "Each row is a checkpoint, each column a layer; a strong cell already routes as the last checkpoint does.",
        found["n"],
        "fixed tokens",
        heats(panels, names, [str(n) for n in facts["layers_of"]], "layer", "of picks"),
        ["checkpoint", *(f"shared {n}" for n in facts["layers_of"]), *(f"first {n}" for n in facts["layers_of"])],
        [[name, *shared, *same] for name, shared, same in zip(names, grid, first, strict=True)],
    )
