"""Line charts as inline SVG, drawn by matplotlib, in the colours of the page around them."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

INK = "#010203"  # stands for the page's text colour, light or dark
# Okabe and Ito's palette, safe for the common kinds of colour blindness (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], x: str, y: str, marks: bool = False) -> str:
    """Return a line chart; series are told apart by colour, dash and label."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    dashes = ("-", "--", "-.", ":")
    with mpl.rc_context(_style()):
        drawing = Figure(figsize=(7, 2.9), layout="constrained")
        axes = drawing.subplots()
        for i, (name, points) in enumerate(series.items()):
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": dashes[i % len(dashes)]}
            axes.plot([p[0] for p in points], [p[1] for p in points], label=name, marker="o" if marks else "", **style)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            drawing.legend(loc="outside right upper", frameon=False, fontsize=8)
        out = StringIO()
        drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _style() -> Any:
    keys = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {**dict.fromkeys(keys, INK), "svg.fonttype": "none", "svg.hashsalt": "polyclinic", "font.size": 9}
