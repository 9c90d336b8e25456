"""How differently languages are routed: matrices, their tree beside the tree of families."""

from itertools import combinations
from typing import Any

from polyclinic.analyse.measures.divergence import linkage, tree_distances
from polyclinic.analyse.report.facts import TOKENS, Facts, label, ordered, spread
from polyclinic.analyse.report.heat import Panel, heats
from polyclinic.analyse.report.plates import Code, Part, Plate, cell
from polyclinic.analyse.report.strokes import Curve, curves, trees
from polyclinic.languages import all_languages
from polyclinic.markup import number, table

LEAD = (
    "The Jensen-Shannon divergence of two languages' picks is 0 where both use the experts alike and 1 bit where they "
    "share none. It does not know why they differ: script and vocabulary count as language here."
)


def part(facts: Facts) -> Part:
    """Return the last layer's matrix and trees, the change over layers, and every layer's matrix folded."""
    if len(facts["divergence"]["languages"]) < 2:  # noqa: PLR2004
        return Part("How differently languages are routed", LEAD, [], "<p>One language cannot be compared.</p>")
    plates = [_matrix(facts, [-1], "divergence"), _tree(facts), _by_layer(facts)]
    others = list(range(len(facts["layers_of"]) - 1))
    folded = [_matrix(facts, others, "divergence_other_layers")] if others else []
    return Part("How differently languages are routed", LEAD, plates, folded=folded)


def _matrix(facts: Facts, places: list[int], name: str) -> Plate:
    found = facts["divergence"]
    codes, index = ordered(facts, found["languages"]), {code: i for i, code in enumerate(found["languages"])}
    chosen = [found["layers"][place] for place in places]
    grid = [[[one["matrix"][index[a]][index[b]] for b in codes] for a in codes] for one in chosen]
    panels = [Panel(f"layer {one['layer']}", rows) for one, rows in zip(chosen, grid, strict=True)]
    pairs: list[list[Any]] = [
        [one["layer"], Code(a), Code(b), one["matrix"][index[a]][index[b]]]
        for one in chosen
        for a, b in combinations(codes, 2)
    ]
    shown = None
    if len(places) > 1:
        rows = [[str(one["layer"]), number(one["mean"], 3)] for one in chosen]
        shown = table(["layer", "mean of all pairs"], rows) + f"<p>All pairs are in {name}.csv.</p>"
    else:
        cells = [[cell(Code(a)), *(number(v, 3) for v in row)] for a, row in zip(codes, grid[0], strict=True)]
        shown = table(["language", *codes], cells)
    return Plate(
        name,
        f"Divergence of languages, layer {chosen[0]['layer']}" if len(chosen) == 1 else "Divergence, the other layers",
        f"Over all pairs the mean is {spread([one['mean'] for one in chosen])} bits.",
        "A strong cell is a pair of languages that use different experts; relatives stand together along the diagonal.",
        sum(found["n"]),
        TOKENS,
        heats(panels, [label(code) for code in codes], codes, "", "bits"),
        ["layer", "language", "other language", "bits"],
        pairs,
        shown,
    )


def _tree(facts: Facts) -> Plate:
    found = facts["divergence"]
    last, codes = found["layers"][-1], found["languages"]
    sides, x = {"by routing": last["linkage"]}, {"by routing": "bits"}
    if all(code in all_languages() for code in codes):
        sides["by family"] = linkage(tree_distances(codes)).tolist()
        x["by family"] = "distance in Glottolog's tree"
    told = "Too few languages to compare the trees."
    if last["tree_correlation"] is not None:
        told = f"The heights of both trees correlate with {last['tree_correlation']:.3f} (p {last['p_value']:.3f})."
    return Plate(
        "tree",
        f"Tree of routing beside the tree of families, layer {last['layer']}",
        told,
        "Languages that join near the names are routed alike on the left, are near relatives on the right.",
        sum(found["n"]),
        TOKENS,
        trees(sides, [label(code) for code in codes], x),
        ["step", "one", "other", "height (bits)", "languages"],
        _merges(last["linkage"], codes),
    )


def _merges(found: list[list[float]], codes: list[str]) -> list[list[Any]]:
    """Return what joins at which height; a group is named after its step."""
    names = [*codes, *(f"group {i + 1}" for i in range(len(found)))]
    return [[i + 1, names[int(a)], names[int(b)], height, int(size)] for i, (a, b, height, size) in enumerate(found)]


def _by_layer(facts: Facts) -> Plate:
    rows = facts["divergence"]["layers"]
    xs, none = [r["layer"] for r in rows], [None] * len(rows)
    charts = {"mean divergence of pairs (bits)": {"": Curve(xs, [r["mean"] for r in rows], none)}}
    trees_of = [(r["layer"], r["tree_correlation"]) for r in rows if r["tree_correlation"] is not None]
    if trees_of:
        layer_xs, values = zip(*trees_of, strict=True)
        charts["correlation with the family tree"] = {"": Curve(layer_xs, values, [None] * len(values))}
    return Plate(
        "divergence_by_layer",
        "Divergence by layer",
        f"The mean over pairs is {spread([r['mean'] for r in rows])} bits.",
        "A line that rises says that languages part; the correlation says whether relatives are routed alike.",
        sum(facts["divergence"]["n"]),
        TOKENS,
        curves(charts, "layer"),
        ["layer", "mean (bits)", "correlation with the family tree", "p"],
        [[r["layer"], r["mean"], r["tree_correlation"], r["p_value"]] for r in rows],
    )
