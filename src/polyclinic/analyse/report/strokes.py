"""Drawings of lines: curves with their intervals, flows through experts, trees of languages."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster import hierarchy

from polyclinic import figures

THINNEST = 0.01  # share of tokens below which a way is not drawn


class Curve(NamedTuple):
    """Values over x with their intervals, None where there is none."""

    xs: Sequence[float]
    ys: Sequence[float]
    intervals: Sequence[tuple[float, float] | None]


def curves(charts: Mapping[str, Mapping[str, Curve]], x: str, at: float | None = 0.0) -> figures.Picture:
    """Return charts side by side, one line and band each name, against an upright line at `at`."""
    from matplotlib.figure import Figure

    across = min(2, len(charts))
    down = -(-len(charts) // across)
    names = list(dict.fromkeys(name for chart in charts.values() for name in chart))
    with figures.in_style():
        drawing = Figure(figsize=(4.6 * across, 2.3 * down))
        # Margins in inches: laying each chart out by its labels would take seconds.
        drawing.subplots_adjust(
            **{"left": 0.6 / (4.6 * across), "right": 1 - 0.15 / (4.6 * across), "wspace": 0.2},
            **{"bottom": 0.5 / (2.3 * down), "top": 1 - 0.3 / (2.3 * down), "hspace": 0.55},
        )
        places = drawing.subplots(down, across, squeeze=False).flat
        for axes, (title, chart) in zip(places, charts.items(), strict=False):
            for name, curve in chart.items():
                _band(axes, curve, names.index(name), name)
            if at is not None:
                axes.axhline(at, color=figures.INK, linewidth=0.8)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(x)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if len(names) > 1:
                axes.legend(frameon=False, fontsize=7)
        for axes in drawing.axes[len(charts) :]:
            axes.set_visible(False)
    return figures.Picture(drawing)


def _band(axes: Any, curve: Curve, place: int, name: str) -> None:
    colour, dash = figures.COLOURS[place % len(figures.COLOURS)], figures.DASHES[place % len(figures.DASHES)]
    axes.plot(curve.xs, curve.ys, color=colour, linestyle=dash, marker="o", markersize=3, label=name)
    there = [(x, pair[0], pair[1]) for x, pair in zip(curve.xs, curve.intervals, strict=True) if pair]
    if len(there) > 1:
        axes.fill_between(*zip(*there, strict=True), color=colour, alpha=0.25, linewidth=0)
    elif there:
        x, low, high = there[0]
        axes.plot([x, x], [low, high], color=colour)


class Flow(NamedTuple):
    """A circuit to be drawn: nodes (layer, expert, share) and edges (layer, expert, expert, share)."""

    title: str
    nodes: Sequence[tuple[int, int, float]]
    edges: Sequence[tuple[int, int, int, float]]


def flows(panels: Sequence[Flow], layers: Sequence[int], num_experts: int) -> figures.Picture:
    """Return circuits as small multiples: layers from left to right, experts from top to bottom.

    All on one canvas measured in cells, since an axes for each would take seconds.
    """
    from matplotlib.figure import Figure

    across = min(len(panels), 3 if len(layers) <= 12 else 2)  # noqa: PLR2004
    down = -(-len(panels) // across)
    step = max(1.0, 8 / len(layers))
    wide, high = (len(layers) - 1) * step + 2.5, num_experts + 1.5
    place = {layer: i * step for i, layer in enumerate(layers)}
    with figures.in_style():
        drawing = Figure(figsize=(10.5, down * max(1.5, 0.19 * high) + 0.2))
        axes = drawing.add_axes((0.04, 0, 0.95, 1))
        for i, panel in enumerate(panels):
            corner = i % across * wide, i // across * high + 1
            _flow(axes, panel, place, corner, i % across == 0, num_experts)
        axes.set(xlim=(-1, across * wide - 1), ylim=(down * high, -0.2))
        axes.set_axis_off()
    return figures.Picture(drawing)


def _flow(
    axes: Any, panel: Flow, place: Mapping[int, float], corner: tuple[float, float], is_left: bool, num_experts: int
) -> None:
    x, y = corner
    last = x + max(place.values())
    _paths(axes, [((x, y + e), (last, y + e)) for e in range(num_experts)], 0.5, figures.INK, 0.15)
    following, classes = dict(pairwise(place)), dict[float, list[Any]]()
    for layer, one, other, share in panel.edges:
        if share >= THINNEST:  # ways of like width are one path, which keeps the file small
            way = (x + place[layer], y + one), (x + place[following[layer]], y + other)
            classes.setdefault(round(share * 20) / 20, []).append(way)
    for share, ways in sorted(classes.items()):
        _paths(axes, ways, 0.4 + 8 * share, figures.COLOURS[5], 0.6)
    if panel.nodes:
        xs, ys = zip(*((x + place[layer], y + expert) for layer, expert, _ in panel.nodes), strict=True)
        sizes = [130 * round(share, 1) for *_, share in panel.nodes]
        axes.scatter(xs, ys, s=sizes, color=figures.COLOURS[1], zorder=3, linewidths=0)
    axes.text((x + last) / 2, y - 0.75, panel.title, ha="center", va="center", fontsize=8)
    for layer in list(place)[:: -(-len(place) // 12)]:
        axes.text(x + place[layer], y + num_experts - 0.3, str(layer), ha="center", va="top", fontsize=6.5)
    for expert in range(0, num_experts, -(-num_experts // 16)) if is_left else ():
        axes.text(x - 0.3, y + expert, str(expert), ha="right", va="center", fontsize=6.5)


def _paths(axes: Any, ways: Sequence[Any], width: float, colour: str, alpha: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=np.uint8), len(ways))
    path = Path(np.array(ways, dtype=float).reshape(-1, 2), codes)
    axes.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=width, alpha=alpha, clip_on=False))


def trees(sides: Mapping[str, Any], names: Sequence[str], x: Mapping[str, str]) -> figures.Picture:
    """Return trees side by side, each a linkage of the same names, with what its height means."""
    from matplotlib.figure import Figure

    with figures.in_style():
        drawing = Figure(figsize=(10.5, 0.9 + 0.16 * len(names)), layout="constrained")
        places = drawing.subplots(1, len(sides), squeeze=False).flat
        for axes, (title, linkage) in zip(places, sides.items(), strict=True):
            plan = hierarchy.dendrogram(np.asarray(linkage), no_plot=True)
            for ys, xs in zip(plan["icoord"], plan["dcoord"], strict=True):
                axes.plot(xs, ys, color=figures.COLOURS[0], linewidth=1.2)
            axes.set_yticks([5 + 10 * i for i in range(len(names))], [names[i] for i in plan["leaves"]], fontsize=7)
            axes.yaxis.tick_right()
            axes.invert_xaxis()
            axes.set_xlabel(x[title])
            axes.set_title(title, fontsize=9)
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "left", "right"]].set_visible(False)
    return figures.Picture(drawing)
