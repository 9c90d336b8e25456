"""The two drawings of a data card, as in Figure 1 of arXiv 2410.10626: a ring of categories, bars of languages.

Plain SVG in the colours of the page around it; names and figures stand beside every colour, so none
carries meaning alone.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, cos, floor, log10, pi, sin

from polyclinic.figures import COLOURS

ROW, LEFT, RIGHT, BARS = 15, 150, 70, 420  # pixels: a row, names, figures, and the bars between them
OUTER, INNER = 90, 55
OTHERS = "other"


def ring(amounts: Mapping[str, int], title: str) -> str:
    """Return the shares of some amounts as a ring, the largest first, at most seven of them."""
    ranked = sorted(((name, n) for name, n in amounts.items() if n > 0), key=lambda pair: (-pair[1], pair[0]))
    most = len(COLOURS) - 1
    if len(ranked) > len(COLOURS):
        ranked = [*ranked[:most], (OTHERS, sum(n for _, n in ranked[most:]))]
    total = sum(n for _, n in ranked) or 1
    parts, begin = [], 0.0
    for i, (name, n) in enumerate(ranked):
        end = begin + n / total
        parts.append(f'<path d="{_arc(begin, end)}" fill="{COLOURS[i]}" fill-rule="evenodd"/>')
        y = 24 + 20 * i
        parts.append(f'<rect x="220" y="{y - 10}" width="12" height="12" fill="{COLOURS[i]}"/>')
        parts.append(f'<text x="240" y="{y}">{escape(name)} {100 * n / total:.1f} %</text>')
        begin = end
    return _svg(520, 200, title, "".join(parts))


def _arc(begin: float, end: float) -> str:
    """Return the path of a piece of the ring, in shares of the whole turn, clockwise from the top."""
    half, nearly_whole = 0.5, 0.99999
    if end - begin > nearly_whole:  # an arc from a point to itself is nothing: two circles
        return "".join(
            f"M100 {100 - r}A{r} {r} 0 1 1 100 {100 + r}A{r} {r} 0 1 1 100 {100 - r}Z" for r in (OUTER, INNER)
        )
    large = int(end - begin > half)
    outer, inner = ([_point(turn, r) for turn in (begin, end)] for r in (OUTER, INNER))
    return f"M{outer[0]}A{OUTER} {OUTER} 0 {large} 1 {outer[1]}L{inner[1]}A{INNER} {INNER} 0 {large} 0 {inner[0]}Z"


def _point(turn: float, radius: float) -> str:
    return f"{100 + radius * sin(2 * pi * turn):.2f} {100 - radius * cos(2 * pi * turn):.2f}"


def bars(groups: Sequence[tuple[str, Sequence[tuple[str, int]]]], unit: str, title: str) -> str:
    """Return bars on a logarithmic axis: (group, its (name, amount) rows), a colour for each group.

    Amounts of 0 have a row and no bar.
    """
    found = [n for _, rows in groups for _, n in rows if n > 0]
    low, high = floor(log10(min(found))) if found else 0, ceil(log10(max(found))) if found else 1
    high = max(high, low + 1)
    height = ROW * (sum(1 + len(rows) for _, rows in groups) + 2)
    parts = []
    for power in range(low, high + 1):
        x = LEFT + BARS * (power - low) / (high - low)
        parts.append(f'<path d="M{x:.1f} {ROW}V{height - ROW}" stroke="currentColor" stroke-opacity=".2"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 3}" text-anchor="middle">{_short(10**power)}</text>')
    parts.append(f'<text x="{LEFT + BARS + RIGHT}" y="11" text-anchor="end">{escape(unit)}, logarithmic</text>')
    y = ROW
    for i, (group, rows) in enumerate(groups):
        colour = COLOURS[i % len(COLOURS)]
        y += ROW
        parts.append(f'<text x="4" y="{y - 3}" font-weight="bold">{escape(group)}</text>')
        for name, n in rows:
            width = BARS * (log10(n) - low) / (high - low) if n > 0 else 0
            y += ROW
            parts.append(f'<text x="{LEFT - 6}" y="{y - 3}" text-anchor="end">{escape(name)}</text>')
            parts.append(
                f'<rect x="{LEFT}" y="{y - 13}" width="{max(width, 1 if n else 0):.1f}" height="11" fill="{colour}"/>'
            )
            parts.append(f'<text x="{LEFT + width + 5:.1f}" y="{y - 3}">{_short(n)}</text>')
    return _svg(LEFT + BARS + RIGHT, height, title, "".join(parts))


def _short(n: int) -> str:
    """Return a number with three figures and its unit of thousands."""
    for size, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.3g} {sign}"
    return str(n)


def _svg(width: int, height: int, title: str, inside: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="inherit" font-size="11" fill="currentColor">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )
