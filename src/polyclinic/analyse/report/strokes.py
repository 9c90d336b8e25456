"""Drawings of lines: curves with their intervals, flows through experts, trees of languages."""

from collections.abc import Mapping, Sequence
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
        drawing = Figure(figsize=(4.2 * across, 2.3 * down), layout="constrained")
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
    there = [(x, *pair) for x, pair in zip(curve.xs, curve.intervals, strict=True) if pair]
    if len(there) > 1:
        xs, low, high = zip(*there, strict=True)
        axes.fill_between(xs, low, high, color=colour, alpha=0.25, linewidth=0)
    else:
        for x, low, high in there:
            axes.plot([x, x], [low, high], color=colour)


class Flow(NamedTuple):
    """A circuit to be drawn: nodes (layer, expert, share) and edges (layer, expert, expert, share)."""

    title: str
    nodes: Sequence[tuple[int, int, float]]
    edges: Sequence[tuple[int, int, int, float]]


def flows(panels: Sequence[Flow], layers: Sequence[int], num_experts: int) -> figures.Picture:
    """Return circuits as small multiples: layers from left to right, experts from top to bottom."""
    from matplotlib.figure import Figure

    across = min(len(panels), 3 if len(layers) <= 12 else 1)  # noqa: PLR2004
    down = -(-len(panels) // across)
    high = 0.6 + min(3.2, max(1.1, 0.16 * num_experts))
    place = {layer: i for i, layer in enumerate(layers)}
    with figures.in_style():
        drawing = Figure(figsize=(10.5, high * down), layout="constrained")
        for axes, panel in zip(drawing.subplots(down, across, squeeze=False).flat, panels, strict=False):
            _flow(axes, panel, place)
            axes.set_title(panel.title, fontsize=8)
            every = -(-len(layers) // 12)
            axes.set_xticks(range(0, len(layers), every), layers[::every], fontsize=7)
            axes.set_yticks(range(num_experts) if num_experts <= 16 else [0, num_experts - 1])  # noqa: PLR2004
            axes.tick_params(labelsize=7, length=0)
            axes.set(xlim=(-0.5, len(layers) - 0.5), ylim=(num_experts - 0.5, -0.5))
            axes.spines[:].set_visible(False)
            axes.grid(alpha=0.15)
        for axes in drawing.axes[len(panels) :]:
            axes.set_visible(False)
        drawing.supxlabel("layer", fontsize=8)
        drawing.supylabel("expert", fontsize=8)
    return figures.Picture(drawing)


def _flow(axes: Any, panel: Flow, place: Mapping[int, int]) -> None:
    from matplotlib.collections import LineCollection

    edges = [edge for edge in panel.edges if edge[3] >= THINNEST]
    ways = [[(place[layer], one), (place[layer] + 1, other)] for layer, one, other, _ in edges]
    widths = [0.4 + 8 * share for *_, share in edges]
    axes.add_collection(LineCollection(ways, linewidths=widths, colors=figures.COLOURS[5], alpha=0.6))
    xs, ys, sizes = ([place[n[0]] for n in panel.nodes], [n[1] for n in panel.nodes], [n[2] for n in panel.nodes])
    axes.scatter(xs, ys, s=[130 * size for size in sizes], color=figures.COLOURS[1], zorder=3, linewidths=0)


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
