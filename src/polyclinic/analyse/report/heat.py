"""Small multiples of shaded cells, one panel a layer or a model, with shared labels and one scale."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyclinic import figures

# Readable on white and on black; more of it is more, the second is below 0.
TINT, BELOW = (0.13, 0.52, 0.80), (0.85, 0.42, 0.10)
WIDTH = 10.5  # inches
LETTER, TITLE, GAP, SCALE = 0.06, 0.24, 0.18, 0.5  # inches: of a label's letter, above, between, below all


class Panel(NamedTuple):
    """Values [row, column], None where there is none; `framed` cells (row, column) have a frame."""

    title: str
    values: Sequence[Sequence[float | None]]
    framed: Iterable[tuple[int, int]] = ()


def heats(panels: Sequence[Panel], rows: Sequence[str], columns: Sequence[str], x: str, unit: str) -> figures.Picture:
    """Return panels of the same rows; a panel's columns are the first of `columns`. The scale ends at the largest."""
    from matplotlib.figure import Figure

    most = max((abs(v) for p in panels for row in p.values for v in row if v is not None), default=0.0) or 1.0
    left = 0.15 + LETTER * max(map(len, rows), default=0)
    under = 0.3 + (LETTER * max(map(len, columns)) if is_long(columns) else 0.1)
    wide = max(1.1, 0.17 * max(len(p.values[0]) for p in panels))
    high = max(0.3, len(rows) * (0.17 if len(rows) <= 20 else 0.125))  # noqa: PLR2004
    across = max(1, min(len(panels), int((WIDTH - left) / (wide + GAP))))
    down = -(-len(panels) // across)
    if len(panels) < 4:  # noqa: PLR2004
        wide = min(4.0, (WIDTH - left) / across - GAP)
    size = (left + across * (wide + GAP), down * (high + TITLE + under) + SCALE)
    with figures.in_style():
        drawing = Figure(figsize=size)
        for place, panel in enumerate(panels):
            corner = left + place % across * (wide + GAP), size[1] - (place // across + 1) * (high + TITLE + under)
            box = [corner[0], corner[1] + under, wide, high]
            axes = drawing.add_axes([v / size[i % 2] for i, v in enumerate(box)])
            _shade(axes, panel, most)
            axes.set_yticks(range(len(rows)), rows if place % across == 0 else [], fontsize=7)
            is_last = place + across >= len(panels)
            _label(axes, columns[: len(panel.values[0])], x if is_last else "")
        _scale(drawing, size, left, most, any((v or 0) < 0 for p in panels for row in p.values for v in row), unit)
    return figures.Picture(drawing)


def is_long(columns: Sequence[str]) -> bool:
    """Say whether column labels must stand upright."""
    return max(map(len, columns), default=0) > 2  # noqa: PLR2004


def _shade(axes: Any, panel: Panel, most: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    axes.imshow(_colours(panel.values, most), aspect="auto", interpolation="none")
    axes.set_title(panel.title, fontsize=8, pad=3)
    axes.tick_params(length=0, pad=2)
    corners = np.asarray(Path.unit_rectangle().vertices) - 0.5
    boxes = [corners + np.array([column, row]) for row, column in panel.framed]
    if boxes:  # one path for all frames keeps the file small
        codes = np.tile(Path.unit_rectangle().codes, len(boxes))
        path = Path(np.concatenate(boxes), codes)
        axes.add_patch(PathPatch(path, fill=False, edgecolor=figures.COLOURS[1], linewidth=1))


def _colours(values: Sequence[Sequence[float | None]], most: float) -> Any:
    """Return red, green, blue and how opaque, so that the page's ground shows through what is small."""
    numbers = np.array([[0.0 if v is None else v for v in row] for row in values], dtype=float)
    opaque = np.abs(numbers)[..., None] / most
    return np.concatenate([np.where(numbers[..., None] < 0, BELOW, TINT), opaque.clip(0, 1)], -1)


def _label(axes: Any, columns: Sequence[str], x: str) -> None:
    every = 1 if len(columns) <= 16 or is_long(columns) else 4  # noqa: PLR2004
    places = range(0, len(columns), every)
    labels = [columns[i] for i in places]
    axes.set_xticks(places, labels, fontsize=7, rotation=90 if is_long(columns) else 0)
    axes.set_xlabel(x, fontsize=7, labelpad=2)


def _scale(drawing: Any, size: tuple[float, float], left: float, most: float, both: bool, unit: str) -> None:
    """Draw what a shade stands for."""
    axes = drawing.add_axes([left / size[0], 0.3 / size[1], min(2.0, size[0] - left - 0.3) / size[0], 0.1 / size[1]])
    low = -most if both else 0.0
    axes.imshow(_colours([np.linspace(low, most, 64).tolist()], most), aspect="auto", extent=(low, most, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([low, most], [f"{low:.3g}", f"{most:.3g} {unit}"], fontsize=7)
    axes.tick_params(length=0, pad=2)
