"""How evenly experts are used, and how sure the router is."""

from polyclinic.analyse.report.facts import TOKENS, Facts, experts, label, layers, ordered, spread
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Code, Part, Plate
from polyclinic.analyse.report.strokes import Curve, curves

LEAD = (
    "Experts that take an even part of the picks are all in use; one that takes almost none is weight without work. "
    "Margin and entropy say how sure the router is of its picks."
)

SURENESS = {
    "margin": (
        "Margin of the router",
        "",
        "the margin is the last pick's probability minus the best not picked, and a faint cell a router that wavers.",
    ),
    "entropy": (
        "Entropy of the router",
        "nats",
        "a strong cell is a router that spreads its probability over many experts.",
    ),
}


def part(facts: Facts) -> Part:
    """Return load, evenness, and the router's margin and entropy."""
    plates = [_load(facts), _evenness(facts), *(_sureness(facts, key) for key in SURENESS)]
    return Part("How evenly experts are used", LEAD, plates)


def _load(facts: Facts) -> Plate:
    rows = facts["balance"]["layers"]
    even = 1 / facts["num_experts"]
    return Plate(
        "load",
        "Load of each expert",
        f"An expert's share of a layer's picks is {spread([v for r in rows for v in r['load']])}; even is {even:.3f}.",
        "Each row is a layer, each column an expert; a stronger cell takes more of the picks, and a row adds up to 1.",
        facts["balance"]["n"],
        TOKENS,
        heats([Panel("", [r["load"] for r in rows])], layers(facts), experts(facts), "expert", "of the picks"),
        ["layer", *experts(facts)],
        [[r["layer"], *r["load"]] for r in rows],
    )


def _evenness(facts: Facts) -> Plate:
    rows = facts["balance"]["layers"]
    named = {
        "Gini: 0 is even": "gini",
        "MaxVio: largest load over the mean, minus 1": "max_violation",
        "entropy of the load, share of the most possible": "of_most",
    }
    xs, none = [r["layer"] for r in rows], [None] * len(rows)
    charts = {title: {"": Curve(xs, [r[key] for r in rows], none)} for title, key in named.items()}
    return Plate(
        "evenness",
        "Evenness by layer",
        f"Gini {spread([r['gini'] for r in rows])}, MaxVio {spread([r['max_violation'] for r in rows])}, "
        f"entropy {spread([r['of_most'] for r in rows])} of the most possible.",
        "Gini and MaxVio are 0 where all experts take as much, the entropy is then 1.",
        facts["balance"]["n"],
        TOKENS,
        curves(charts, "layer", None),
        ["layer", "Gini", "MaxVio", "entropy (nats)", "of the most possible"],
        [[r["layer"], r["gini"], r["max_violation"], r["entropy"], r["of_most"]] for r in rows],
    )


def _sureness(facts: Facts, key: str) -> Plate:
    found = facts["balance"]["languages"]
    codes = ordered(facts, list(found))
    title, unit, read = SURENESS[key]
    values = [found[code][key] for code in codes]
    return Plate(
        f"router_{key}",
        title,
        f"The mean of a language in a layer is {spread([v for row in values for v in row])}{unit and ' '}{unit}.",
        f"Each row is a language, each column a layer; {read}",
        facts["balance"]["n"],
        TOKENS,
        heats(
            [Panel("", values)], [label(code) for code in codes], [str(n) for n in facts["layers_of"]], "layer", unit
        ),
        ["language", "n", *(f"layer {n}" for n in facts["layers_of"])],
        [[Code(code), found[code]["n"], *found[code][key]] for code in codes],
    )
