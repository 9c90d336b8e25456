"""Circuits: experts that most tokens of a group go through, and the ways between them, as flows."""

from typing import Any

from polyclinic.analyse.report.facts import TOKENS, Facts, label
from polyclinic.analyse.report.plates import Part, Plate
from polyclinic.analyse.report.strokes import THINNEST, Flow, flows

LEAD = (
    "A circuit is the experts that at least a share tau of a group's tokens has among its picks, and the ways that "
    "first picks take between them from one layer to the next. 1.0 means every token."
)
MOST = 9  # families that are drawn


def part(facts: Facts) -> Part:
    """Return the circuit of all text at several tau, and those of groups at one."""
    groups = facts["circuits"]["groups"]
    families = [name for name in groups if name.startswith("family: ")]
    plates = [_sweep(facts)]
    plates += [_groups(facts, families[:MOST], "families", "Circuits of families")] if families else []
    singles = [name for name in groups if name != "all" and name not in families]
    plates += [_groups(facts, singles[:MOST], "languages", "Circuits of single languages")]
    return Part("Circuits", LEAD, plates)


def _flow(title: str, found: Any, tau: float) -> Flow:
    """Return the part of a circuit that is above a tau: a higher tau only takes away."""
    nodes = [(n["layer"], n["expert"], n["share"]) for n in found["nodes"] if n["share"] >= tau]
    there = {(layer, expert) for layer, expert, _ in nodes}
    edges = [
        (e["layer"], e["expert"], e["next_expert"], e["share"])
        for e in found["edges"]
        if (e["layer"], e["expert"]) in there and (e["next_layer"], e["next_expert"]) in there
    ]
    return Flow(title, nodes, edges)


def _sweep(facts: Facts) -> Plate:
    group = facts["circuits"]["groups"]["all"]
    lowest = group["lowest"]
    sizes = {step["tau"]: step for step in group["sweep"] if step["tau"] >= lowest["tau"]}
    drawn = [tau for tau in sizes if sizes[tau]["nodes"]] or [lowest["tau"]]
    panels = [
        _flow(f"tau {tau:.1f}: experts {sizes[tau]['nodes']}, ways {sizes[tau]['edges']}", lowest, tau) for tau in drawn
    ]
    at = facts["circuits"]["tau"]
    return Plate(
        "circuit_sweep",
        "The circuit of all languages, by tau",
        f"At tau {at:.1f} experts: {sizes[at]['nodes']}, ways between them: {sizes[at]['edges']}.",
        "Layers go from left to right, experts from top to bottom; a dot is an expert, its area the share of tokens "
        f"that pick it, a line the share whose first picks go that way (below {THINNEST:.2f} not drawn).",
        group["n"],
        TOKENS,
        flows(panels, facts["layers_of"], facts["num_experts"]),
        ["from layer", "expert", "to layer", "next expert", "share", "if independent"],
        _ways("", lowest),
    )


def _ways(name: str, found: Any) -> list[list[Any]]:
    return [
        [
            *([name] if name else []),
            *(e["layer"], e["expert"], e["next_layer"], e["next_expert"], e["share"], e["independent"]),
        ]
        for e in sorted(found["edges"], key=lambda e: -e["share"])
    ]


def _groups(facts: Facts, names: list[str], file: str, title: str) -> Plate:
    groups, tau = facts["circuits"]["groups"], facts["circuits"]["tau"]
    shown = {name: name.removeprefix("family: ") if file == "families" else label(name) for name in names}
    panels = [_flow(shown[name], groups[name], tau) for name in names]
    sizes = [len(groups[name]["nodes"]) for name in names]
    head = ["group", "n", "experts", "ways", *(f"experts at {s['tau']:.1f}" for s in groups["all"]["sweep"])]
    every = [name for name in groups if name == "all" or name.startswith("family: ") == (file == "families")]
    rows: list[list[Any]] = [
        [
            *(shown.get(name, name), groups[name]["n"], len(groups[name]["nodes"]), len(groups[name]["edges"])),
            *(step["nodes"] for step in groups[name]["sweep"]),
        ]
        for name in every
    ]
    more = f" The first {MOST} are drawn, all are in the table." if len(every) > MOST + 1 else ""
    return Plate(
        f"circuits_{file}",
        f"{title} at tau {tau:.1f}",
        f"The smallest has {min(sizes)} experts, the largest {max(sizes)}.",
        f"As in the figure before, a panel a group: groups with other experts go other ways.{more}",
        sum(groups[name]["n"] for name in names),
        TOKENS,
        flows(panels, facts["layers_of"], facts["num_experts"]),
        head,
        rows,
    )
