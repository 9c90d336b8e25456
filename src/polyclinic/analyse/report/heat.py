"""Small multiples of shaded cells, one panel a layer or a model, with shared labels and one scale.

All panels stand on one canvas measured in inches: an axes each, with its ticks, would take seconds and
megabytes at 24 layers.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyclinic import figures

# Readable on white and on black; more of it is more, the second is below 0.
TINT, BELOW = (0.13, 0.52, 0.80), (0.85, 0.42, 0.10)
WIDTH = 10.5  # inches
LETTER, TITLE, GAP, SCALE = 0.06, 0.24, 0.18, 0.5  # inches: of a label's letter, above, between, below all
SHADES = 32  # more than an eye tells apart, few enough to compress
FEW = 20  # rows that have room


class Panel(NamedTuple):
    """Values [row, column], None where there is none; `framed` cells (row, column) have a frame."""

    title: str
    values: Sequence[Sequence[float | None]]
    framed: Iterable[tuple[int, int]] = ()


class _Grid(NamedTuple):
    """Where panels stand, in inches from the lower left corner."""

    left: float
    under: float
    wide: float
    high: float
    across: int
    down: int

    @property
    def size(self) -> tuple[float, float]:
        return (
            self.left + self.across * (self.wide + GAP) + 0.3,
            self.down * (self.high + TITLE + GAP) + self.under + SCALE,
        )

    def corner(self, place: int) -> tuple[float, float]:
        """Return the upper left corner of a panel."""
        column, row = place % self.across, place // self.across
        return self.left + column * (self.wide + GAP), self.size[1] - TITLE - row * (self.high + TITLE + GAP)


def heats(panels: Sequence[Panel], rows: Sequence[str], columns: Sequence[str], x: str, unit: str) -> figures.Picture:
    """Return panels of the same rows; a panel's columns are the first of `columns`. The scale ends at the largest."""
    from matplotlib.figure import Figure

    values = [v for p in panels for row in p.values for v in row if v is not None]
    most = max(map(abs, values), default=0.0) or 1.0
    grid = _grid(panels, rows, columns)
    with figures.in_style():
        drawing = Figure(figsize=grid.size)
        axes = drawing.add_axes((0, 0, 1, 1))
        for place, panel in enumerate(panels):
            left, top = grid.corner(place)
            _shade(axes, panel, most, (left, left + grid.wide, top - grid.high, top))
            if place % grid.across == 0:
                _row_labels(axes, rows, left, top, grid.high)
            if place + grid.across >= len(panels):
                _column_labels(axes, columns[: len(panel.values[0])], x, (left, top - grid.high, grid.wide))
        _scale(axes, grid.left, most, min(values, default=0.0) < 0, unit)
        axes.set(xlim=(0, grid.size[0]), ylim=(0, grid.size[1]))
        axes.set_axis_off()
    return figures.Picture(drawing)


def _grid(panels: Sequence[Panel], rows: Sequence[str], columns: Sequence[str]) -> _Grid:
    left = 0.15 + LETTER * max(map(len, rows), default=0)
    under = 0.3 + (LETTER * max(map(len, columns)) if is_long(columns) else 0.1)
    wide = max(1.1, 0.17 * max(len(p.values[0]) for p in panels))
    high = max(0.3, len(rows) * (0.17 if len(rows) <= FEW else 0.125))
    across = max(1, min(len(panels), int((WIDTH - left) / (wide + GAP))))
    if len(panels) < 4:  # noqa: PLR2004
        wide = max(wide, min(4.0, (WIDTH - left) / across - GAP))
    return _Grid(left, under, wide, high, across, -(-len(panels) // across))


def is_long(columns: Sequence[str]) -> bool:
    """Say whether column labels must stand upright."""
    return max(map(len, columns), default=0) > 2  # noqa: PLR2004


def _shade(axes: Any, panel: Panel, most: float, box: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    x0, x1, y0, y1 = box
    axes.imshow(_colours(panel.values, most), aspect="auto", interpolation="none", extent=box)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=figures.INK, linewidth=0.6))
    if panel.title:
        axes.text((x0 + x1) / 2, y1 + 0.04, panel.title, ha="center", va="bottom", fontsize=8)
    cell = np.array([(x1 - x0) / len(panel.values[0]), (y1 - y0) / len(panel.values)])
    square = Path.unit_rectangle()
    corners = np.asarray(square.vertices)
    lower = [np.array([column, -row - 1]) for row, column in panel.framed]
    boxes = [np.array([x0, y1]) + (corners + place) * cell for place in lower]
    if boxes:  # one path for all frames keeps the file small
        path = Path(np.concatenate(boxes), np.tile(np.asarray(square.codes), len(boxes)))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=figures.COLOURS[1], linewidth=1))


def _colours(values: Sequence[Sequence[float | None]], most: float) -> Any:
    """Return red, green, blue and how opaque, so that the page's ground shows through what is small."""
    numbers = np.array([[0.0 if v is None else v for v in row] for row in values], dtype=float)
    opaque = (np.abs(numbers)[..., None] / most * SHADES).round() / SHADES
    return np.concatenate([np.where(numbers[..., None] < 0, BELOW, TINT), opaque.clip(0, 1)], -1)


def _row_labels(axes: Any, rows: Sequence[str], left: float, top: float, high: float) -> None:
    for i, label in enumerate(rows):
        y = top - (i + 0.5) * high / len(rows)
        axes.text(left - 0.04, y, label, ha="right", va="center_baseline", fontsize=7)


def _column_labels(axes: Any, columns: Sequence[str], x: str, box: tuple[float, float, float]) -> None:
    left, bottom, wide = box
    upright = is_long(columns)
    every = 1 if upright or len(columns) <= FEW else 4
    for i in range(0, len(columns), every):
        place = left + (i + 0.5) * wide / len(columns)
        axes.text(place, bottom - 0.04, columns[i], ha="center", va="top", fontsize=7, rotation=90 if upright else 0)
    under = LETTER * max(map(len, columns), default=0) if upright else 0.12
    axes.text(left + wide / 2, bottom - 0.06 - under, x, ha="center", va="top", fontsize=7)


def _scale(axes: Any, left: float, most: float, both: bool, unit: str) -> None:
    """Draw what a shade stands for."""
    low = -most if both else 0.0
    shades = Panel("", [np.linspace(low, most, 64).tolist()])
    _shade(axes, shades, most, (left, left + 2.0, 0.26, 0.36))
    axes.text(left, 0.22, f"{low:.3g}", ha="center", va="top", fontsize=7)
    axes.text(left + 2.0, 0.22, f"{most:.3g} {unit}", ha="center", va="top", fontsize=7)
