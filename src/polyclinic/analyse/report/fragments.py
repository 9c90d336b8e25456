"""The sections of an analysis: what its folder holds, in the order it is read."""

from pathlib import Path

from polyclinic.analyse.report import about, apart, load, map, tokens, ways, worth
from polyclinic.analyse.report.facts import Facts
from polyclinic.analyse.report.plates import Part, fragments_of
from polyclinic.markup import Fragment
from polyclinic.runs import read_json

FIGURES = "figures"


def fragments(folder: Path) -> list[Fragment]:
    """Return the sections that stand in the report of a run: who serves whom, and whether it is about language.

    The page of `analyse run` has all of them; twenty pictures more would take a run's report some seconds each time.
    """
    facts = read_json(folder / "routing.json")
    return fragments_of([map.part(facts), about.part(facts)])


def parts(folder: Path) -> list[Part]:
    """Return the sections of an analyse step's folder; causal.json and depth.json where they are there."""
    facts = read_json(folder / "routing.json")
    found = [part(facts) for part in (map.part, about.part, apart.part, load.part, tokens.part, ways.part)]
    if facts.get("forced") and facts["family"]:
        found.append(worth.forced(facts))
    if (folder / "causal.json").is_file():
        found.append(worth.causal(facts, read_json(folder / "causal.json")))
    for path in (folder / "depth.json", folder.parent / "depth" / "depth.json"):
        if path.is_file():
            return [*found, worth.depth(read_json(path))]
    return found


def cards(facts: Facts) -> list[tuple[str, str]]:
    """Return the figures that stand above all others."""
    held = facts["information"]["first_pick"]["I(E;L|T)"]
    layers = facts["layers_of"]
    out = [
        ("languages", str(len(facts["tokens_of"]))),
        ("tokens", f"{facts['tokens']:,}"),
        ("experts", f"{facts['num_experts']}, {facts['top_k']} a token"),
        ("layers with experts", f"{len(layers)}: {layers[0]} to {layers[-1]}"),
    ]
    if held:
        out.append(("language at the same token id, last layer", f"{held['layers'][-1]['score']:.3f} of 1"))
    return out
