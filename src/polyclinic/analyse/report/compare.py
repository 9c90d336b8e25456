"""Two analyses of the same text side by side: one table of their figures by layer, and paired pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyclinic.analyse.report.about import MEANING, answer
from polyclinic.analyse.report.facts import TOKENS, Facts, label, ordered, pair
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Cell, Code, Part, Plate
from polyclinic.analyse.report.strokes import Curve, curves
from polyclinic.errors import DataError
from polyclinic.runs import read_json

LEAD = (
    "Both models routed the same text with family ids off. Layers are compared by their number: the last layers of a "
    "deeper model stand beside nothing. Intervals are each model's own; where they overlap, no difference was shown."
)
Both = Mapping[str, Facts]
Row = tuple[float | None, list[float] | None, int]  # value, interval, n


def read_analysis(folder: Path) -> Facts:
    """Return the facts of an analysis: its folder, or the one that `analyse run` was told to write to."""
    for path in (folder / "analyse" / "routing.json", folder / "routing.json"):
        if path.is_file():
            facts: Facts = read_json(path)
            return facts
    raise DataError(folder, "holds no routing.json", "name what polyclinic analyse run wrote")


def check_same_text(a: Facts, b: Facts) -> None:
    """Raise DataError unless both routed the same documents."""
    if a.get("text") is None or a.get("text") != b.get("text"):
        counts = [f"{(one.get('text') or {}).get('documents', 'unknown')} documents" for one in (a, b)]
        what = f"A and B routed other text ({counts[0]} and {counts[1]})"
        raise DataError("compare", what, "route the same documents of the same languages through both")


def compare(a: Facts, b: Facts, names: tuple[str, str]) -> dict[str, Any]:
    """Return every figure by layer of both, `rows` in the order of layers; raises DataError for other text."""
    check_same_text(a, b)
    figures = [by_layer(a), by_layer(b)]
    rows = []
    for measure in dict.fromkeys([*figures[0], *figures[1]]):
        one, other = (found.get(measure, {}) for found in figures)
        rows += [
            {"measure": measure, "layer": layer, "a": _row(one.get(layer)), "b": _row(other.get(layer))}
            for layer in sorted({*one, *other})
        ]
    said = {"a": {"name": names[0], "depth": answer(a)}, "b": {"name": names[1], "depth": answer(b)}}
    return {**said, "text": a["text"], "rows": rows}


def _row(found: Row | None) -> dict[str, Any] | None:
    return None if found is None else {"value": found[0], "interval": found[1], "n": found[2]}


def by_layer(facts: Facts) -> dict[str, dict[int, Row]]:
    """Return measure -> layer -> value, interval and n."""
    out: dict[str, dict[int, Row]] = {}
    tokens = facts["tokens"]
    for name, key in (("Gini", "gini"), ("MaxVio", "max_violation"), ("evenness (entropy)", "of_most")):
        out[name] = {r["layer"]: (r[key], None, tokens) for r in facts["balance"]["layers"]}
    divergences = facts["divergence"]
    out["mean divergence (bits)"] = {r["layer"]: (r["mean"], None, tokens) for r in divergences["layers"]}
    scores = {name: facts["information"]["first_pick"][name] for name in MEANING} | {"context": facts["context"]}
    for name, one in scores.items():
        if one:
            out[name] = {r["layer"]: (r["score"], r["interval"], one["n"]) for r in one["layers"]}
    out["picked together"] = {r["layer"]: (r["distance"], None, tokens) for r in facts["coactivation"]["layers"]}
    if facts["family"] and facts["family"]["own_expert_of_all"]:
        own = facts["family"]["own_expert_of_all"]
        rows = zip(facts["layers_of"], own["layers"], strict=True)
        out["own expert, unforced"] = {layer: (r["share"], r["interval"], own["n"]) for layer, r in rows}
    return out


def parts(a: Facts, b: Facts, result: Mapping[str, Any]) -> list[Part]:
    """Return the sections of the page."""
    names = {"A": result["a"]["name"], "B": result["b"]["name"]}
    html = "".join(f"<p><strong>{key}</strong>: {result[key.lower()]['depth']}</p>" for key in names)
    facts = {"A": a, "B": b}
    shared = [layer for layer in a["layers_of"] if layer in b["layers_of"]]
    maps = [_maps(facts, shared)] if shared else []
    none = "" if shared else "<p>No layer holds experts in both models.</p>"
    return [
        Part("By layer", LEAD, [_curves(facts, result)], html),
        Part("Which expert serves which language", LEAD, maps, none),
    ]


def _curves(facts: Both, result: Mapping[str, Any]) -> Plate:
    charts: dict[str, dict[str, Curve]] = {}
    for key, one in facts.items():
        for name, found in by_layer(one).items():
            there = {layer: row for layer, row in found.items() if row[0] is not None}
            bands = [None if row[1] is None else (row[1][0], row[1][1]) for row in there.values()]
            values = [float(row[0] or 0.0) for row in there.values()]
            charts.setdefault(name, {})[key] = Curve(list(there), values, bands)
    rows = [[r["measure"], r["layer"], *_cells(r["a"]), *_cells(r["b"])] for r in result["rows"]]
    return Plate(
        "compare_layers",
        "Figures by layer, A and B",
        f"{len(rows)} pairs of figures.",
        "One chart a measure; a band is a 95 % interval over documents, and a line without one has none.",
        facts["A"]["tokens"] + facts["B"]["tokens"],
        "tokens of both",
        curves(charts, "layer"),
        ["measure", "layer", "n of A", "A", "low", "high", "n of B", "B", "low", "high"],
        rows,
    )


def _cells(found: Mapping[str, Any] | None) -> list[Cell]:
    return [None] * 4 if found is None else [found["n"], found["value"], *pair(found["interval"])]


def _maps(facts: Both, shared: list[int]) -> Plate:
    shares = {key: {row["language"]: row for row in one["shares"]} for key, one in facts.items()}
    codes = ordered(facts["A"], [code for code in shares["A"] if code in shares["B"]])
    panels, rows = [], []
    for layer in shared:
        for key, one in facts.items():
            place, own = one["layers_of"].index(layer), one["expert_of"]
            framed = [(i, own[code]) for i, code in enumerate(codes) if code in own]
            values = [shares[key][code]["layers"][place] for code in codes]
            panels.append(Panel(f"{key}, layer {layer}", values, framed))
            for code, row in zip(codes, values, strict=True):
                rows += [[key, layer, Code(code), shares[key][code]["n"], i, share] for i, share in enumerate(row)]
    most = max(one["num_experts"] for one in facts.values())
    return Plate(
        "compare_maps",
        "Languages by experts, A beside B",
        f"{len(shared)} layers hold experts in both.",
        "Experts of two models have no common order: compare how strong and how framed the rows are, not the columns.",
        facts["A"]["tokens"] + facts["B"]["tokens"],
        TOKENS,
        heats(panels, [label(code) for code in codes], [str(i) for i in range(most)], "expert", "of the tokens"),
        ["model", "layer", "language", "n", "expert", "share"],
        rows,
    )
