"""Whether routing is about language, about the token, or about what stands before it."""

from html import escape
from typing import Any

from polyclinic.analyse.report.facts import Facts, pair, spread
from polyclinic.analyse.report.plates import Part, Plate
from polyclinic.analyse.report.strokes import Curve, curves

LEAD = (
    "Languages use different words, so a router that sees only words also tells languages apart. I(E;L|T) compares "
    "languages on the same token id: what remains is about language. A score is the information beyond chance as a "
    "share of the most there could be; chance is the mean over shuffles that move whole parts of the text."
)
MEANING = {
    "I(E;L)": "language, words included",
    "I(E;L|T)": "language at the same token id",
    "I(E;T|L)": "token id within a language",
    "I(E;T)": "token id",
}
PICKS = {"first_pick": "first pick", "all_picks": "all picks"}


def part(facts: Facts) -> Part:
    """Return the four measures of information, the answer on depth, and the context score."""
    plates = [_scores(facts), _nats(facts)]
    if facts["context"]:
        plates.append(_context(facts))
    return Part("Is the routing about language?", LEAD, plates, f"<p><strong>{escape(answer(facts))}</strong></p>")


def answer(facts: Facts) -> str:
    """Say in one sentence whether languages part with depth once the token id is held fixed."""
    found = facts["information"]["first_pick"]["I(E;L|T)"]
    if found is None:
        return "Whether languages part at the same token id cannot be said: they share too few frequent tokens."
    layers = facts["layers_of"]
    where = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    if found["depth"] is None or found["depth"]["slope_interval"] is None:
        return f"Whether languages part with depth cannot be said of {where} and this text."
    depth = found["depth"]
    low, high = depth["slope_interval"]
    verb = "rises" if low > 0 else "falls" if high < 0 else "was not shown to change"
    text = (
        f"At the same token id, the separation of languages {verb} with depth over {where}: slope "
        f"{depth['slope']:.3f} (95 % {low:.3f} to {high:.3f})"
    )
    if depth["late_over_early"] is not None:
        text += f", late over early layers {depth['late_over_early']:.3f}"
        if depth["late_over_early_interval"]:
            text += " (95 % {:.3f} to {:.3f})".format(*depth["late_over_early_interval"])
    below = f" Layers below {layers[0]} hold no experts, so nothing follows about them." if layers[0] > 0 else ""
    return f"{text}.{below}"


def measured(facts: Facts, picks: str = "first_pick") -> dict[str, Any]:
    """Return the measures that there are, those of language first."""
    return {name: found for name in MEANING if (found := facts["information"][picks][name])}


def curve(found: Any, key: str = "score") -> Curve:
    """Return a measure by layer with its intervals."""
    rows = found["layers"]
    return Curve([r["layer"] for r in rows], [r[key] for r in rows], [r["interval"] for r in rows])


def _scores(facts: Facts) -> Plate:
    found = measured(facts)
    charts = {f"{name}: {MEANING[name]}": {"": curve(one)} for name, one in found.items()}
    told = "; ".join(f"{name} {spread([r['score'] for r in one['layers']])}" for name, one in found.items())
    rows = [
        [PICKS[picks], name, r["layer"], one["n"], r["score"], *pair(r["interval"]), r["p_value"]]
        for picks in PICKS
        for name, one in measured(facts, picks).items()
        for r in one["layers"]
    ]
    return Plate(
        "information",
        "Information by layer, beyond chance",
        f"Scores of the first pick: {told}.",
        "0 is chance and 1 the most possible; the band is the 95 % interval over documents.",
        found["I(E;L)"]["n"],
        "tokens; those by token id have their own n in the table",
        curves(charts, "layer"),
        ["picks", "measure", "layer", "n", "score", "low", "high", "p"],
        rows,
    )


def _nats(facts: Facts) -> Plate:
    found = measured(facts)
    charts = {}
    for name, one in found.items():
        rows, none = one["layers"], [None] * len(one["layers"])
        xs = [r["layer"] for r in rows]
        charts[f"{name} (nats)"] = {
            label: Curve(xs, [r[key] for r in rows], none)
            for label, key in (("estimate", "estimate"), ("by chance", "null"))
        }
    first = found["I(E;L)"]
    return Plate(
        "information_nats",
        "Information as counted, and by chance",
        f"I(E;L) is {spread([r['estimate'] for r in first['layers']])} nats as counted, "
        f"{spread([r['null'] for r in first['layers']])} by chance.",
        "Counting alone makes information look larger than it is: only what lies above the line of chance counts.",
        first["n"],
        "tokens; those by token id have their own n in the table",
        curves(charts, "layer"),
        ["picks", "measure", "layer", "n", "estimate", "by chance", "most possible", "p"],
        [
            [PICKS[picks], name, r["layer"], one["n"], r["estimate"], r["null"], r["most"], r["p_value"]]
            for picks in PICKS
            for name, one in measured(facts, picks).items()
            for r in one["layers"]
        ],
    )


def _context(facts: Facts) -> Plate:
    found = facts["context"]
    return Plate(
        "context",
        "Context score",
        f"What stands before a token decides {spread([r['score'] for r in found['layers']])} of what its own id and "
        "language leave open.",
        "0 is a router that looks at the token alone, 1 one that the previous token decides; the band is the 95 % "
        "interval over documents.",
        found["n"],
        "tokens",
        curves({"context score": {"": curve(found)}}, "layer"),
        ["layer", "n", "score", "low", "high", "p"],
        [[r["layer"], found["n"], r["score"], *pair(r["interval"]), r["p_value"]] for r in found["layers"]],
    )
