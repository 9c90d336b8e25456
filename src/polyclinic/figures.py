"""Charts as inline SVG, drawn by matplotlib, in the colours of the page around them."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO, StringIO
from typing import Any

INK = "#010203"  # stands for the page's text colour, light or dark
# Okabe and Ito's palette, safe for the common kinds of colour blindness (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
# Images stay as many cells as they have; one font's name is enough for each of a thousand labels.
_SMALL = {"image.composite_image": False, "font.sans-serif": ["DejaVu Sans"]}
DASHES = ("-", "--", "-.", ":")
Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], x: str, y: str, marks: bool = False) -> str:
    """Return a line chart; series are told apart by colour, dash and label."""
    return grid({y: series}, x, marks=marks)


def grid(
    charts: Mapping[str, Mapping[str, Points]], x: str, *, marks: bool = False, stacked: bool = False, columns: int = 2
) -> str:
    """Return several charts side by side, y -> series, with one legend; a name has one look in all of them.

    `stacked` lays the series on each other as areas; they must share their points' x.
    """
    return as_svg(drawn_grid(charts, x, marks=marks, stacked=stacked, columns=columns))


def drawn_grid(
    charts: Mapping[str, Mapping[str, Points]], x: str, *, marks: bool = False, stacked: bool = False, columns: int = 2
) -> Any:
    """Return what `grid` shows as a drawing of matplotlib."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for series in charts.values() for name in series))
    looks = {name: _look(i, stacked) for i, name in enumerate(names)}
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    with in_style():
        drawing = Figure(figsize=(7, 2.9 if rows == columns == 1 else 1.9 * rows), layout="constrained")
        places = drawing.subplots(rows, columns, squeeze=False).flat
        for axes, (y, series) in zip(places, charts.items(), strict=False):
            _draw(axes, series, looks, "o" if marks else "", stacked)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
        for axes in list(places)[len(charts) :]:
            axes.set_visible(False)
        if len(names) > 1:
            shown = {
                label: handle
                for axes in drawing.axes
                for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
            }
            drawing.legend(shown.values(), shown, loc="outside right upper", frameon=False, fontsize=8)
        return drawing


def intervals(
    rows: Mapping[str, tuple[float, float, float]], x: str, against: Mapping[str, float] | None = None
) -> str:
    """Return a dot with its interval for each name, in the order given, against a line at 0 or a mark of its own."""
    return as_svg(drawn_intervals(rows, x, against))


def drawn_intervals(
    rows: Mapping[str, tuple[float, float, float]], x: str, against: Mapping[str, float] | None = None
) -> Any:
    """Return what `intervals` shows as a drawing of matplotlib."""
    from matplotlib.figure import Figure

    with in_style():
        drawing = Figure(figsize=(7, 0.8 + 0.2 * len(rows)), layout="constrained")
        axes = drawing.subplots()
        for place, (value, low, high) in enumerate(rows.values()):
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2)
            axes.plot([value], [place], marker="o", color=COLOURS[0], markersize=4)
        if against is None:
            axes.axvline(0.0, color=INK, linewidth=0.8)
        else:
            marks, places = [against[name] for name in rows], list(range(len(rows)))
            axes.plot(marks, places, linestyle="", marker="|", color=COLOURS[1], markersize=9, markeredgewidth=2)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(1, len(rows)))
        axes.set_xlabel(x)
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
        return drawing


def as_svg(drawing: Any) -> str:
    """Return a drawing as SVG in the colours of the page around it."""
    out = StringIO()
    with in_style():
        drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    return _smaller(svg[svg.index("<svg") :].replace(INK, "currentColor"))


def _smaller(svg: str) -> str:
    """Return a drawing without notes of its own words and turns by nothing; places to a thousandth of a point."""
    svg = re.sub(r" *<!--.*?-->\n| transform=\"rotate\(-0 [^\"]*\"", "", svg)
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d{3})\d+", r"\1", tag[0]), svg)


class Picture:
    """A drawing, laid out once and written once in each form."""

    def __init__(self, drawing: Any) -> None:
        if engine := drawing.get_layout_engine():
            with in_style():
                engine.execute(drawing)
            drawing.set_layout_engine("none")
        self._drawing = drawing

    @cached_property
    def svg(self) -> str:
        """Return the drawing for a page."""
        return as_svg(self._drawing)

    @cached_property
    def png(self) -> bytes:
        """Return the drawing as a picture on white."""
        return as_png(self._drawing)


def as_png(drawing: Any) -> bytes:
    """Return a drawing as a picture on white, the same bytes for the same drawing."""
    out = BytesIO()
    with in_style():
        drawing.savefig(out, format="png", facecolor="white", dpi=150, metadata={"Software": None})
    return out.getvalue()


@contextmanager
def in_style() -> Iterator[None]:
    """Draw and write with the look of the page."""
    import matplotlib as mpl

    with mpl.rc_context(_style()), warnings.catch_warnings():
        # Signs that matplotlib's own font lacks: the browser has fonts, the text stays text.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def _look(number: int, area: bool) -> dict[str, Any]:
    """Return the look of a series by its number: colour, and dash or shade where colours come again."""
    colour, again = COLOURS[number % len(COLOURS)], number // len(COLOURS)
    if area:
        return {"color": colour, "alpha": (0.9, 0.5, 0.25)[again % 3], "linewidth": 0}
    return {"color": colour, "linestyle": DASHES[number % len(DASHES)]}


def _draw(axes: Any, series: Mapping[str, Points], looks: Mapping[str, Any], marker: str, stacked: bool) -> None:
    below: list[float] = []
    for name, points in series.items():
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        if not stacked:
            axes.plot(xs, ys, label=name, marker=marker, **looks[name])
            continue
        below = below or [0.0] * len(xs)
        above = [low + y for low, y in zip(below, ys, strict=True)]
        axes.fill([*xs, *reversed(xs)], [*below, *reversed(above)], label=name, **looks[name])
        below = above
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if stacked:
        axes.margins(0)


def _style() -> Any:
    keys = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {**dict.fromkeys(keys, INK), "svg.fonttype": "none", "svg.hashsalt": "polyclinic", "font.size": 9, **_SMALL}
