"""Charts: valid SVG with the text and the points of the series, in the colours of the page."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from polyclinic.figures import COLOURS, INK, grid, lines

SVG = "{http://www.w3.org/2000/svg}"
SERIES = {"base": [(0, 4.0), (1, 3.0), (2, 2.5)], "mixture & <more>": [(0, 4.0), (1, 2.0), (2, 1.0)]}


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own drawing


@pytest.fixture(scope="module")
def svg() -> str:
    return lines(SERIES, "step", "loss per token", marks=True)


def test_the_chart_is_one_svg_element_with_its_labels_as_text(svg: str) -> None:
    root = parse(svg)
    assert root.tag == f"{SVG}svg"
    written = {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}
    assert {"step", "loss per token", *SERIES} <= written


def test_the_chart_takes_the_ink_of_the_page_and_no_date(svg: str) -> None:
    assert INK not in svg
    assert "currentColor" in svg
    assert not re.search(r"<dc:date>|\d{4}-\d{2}-\d{2}", svg)


def test_series_are_told_apart_by_colour_and_dash(svg: str) -> None:
    dashes = re.findall(r"stroke-dasharray: [^;\"]+", svg)
    assert all(colour.lower() in svg.lower() for colour in COLOURS[:2])
    assert dashes


def test_the_line_has_a_point_for_every_value_and_falls_where_values_fall() -> None:
    root = parse(lines({"one": SERIES["base"]}, "x", "y"))
    (path,) = (e.get("d", "") for e in root.iter(f"{SVG}path") if COLOURS[0].lower() in e.get("style", "").lower())
    points = [tuple(map(float, found)) for found in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert len(points) == 3
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)
    assert (y1 - y0) / (y2 - y1) == pytest.approx(2.0, abs=1e-3)  # from 4 to 3 to 2.5; down is positive in SVG
    assert all(b[1] > a[1] for a, b in pairwise(points))


def test_one_series_needs_no_legend_and_many_repeat_no_look() -> None:
    assert "only" not in lines({"only": [(0, 1), (1, 2)]}, "x", "y")
    many = lines({f"s{i}": [(0, i), (1, i + 1)] for i in range(12)}, "x", "y")
    looks = re.findall(r"stroke: (#\w{6})", many)
    assert {colour.lower() for colour in COLOURS} <= {look.lower() for look in looks}


def test_the_same_series_give_the_same_bytes() -> None:
    assert lines(SERIES, "x", "y") == lines(SERIES, "x", "y")


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    assert parse(lines({}, "x", "y")).tag == f"{SVG}svg"


def areas(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """Return the outlines of the areas of a colour, one a chart."""
    filled = (e for e in parse(svg).iter(f"{SVG}path") if f"fill: {colour.lower()}" in e.get("style", ""))
    paths = [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        for path in (e.get("d", "") for e in filled)
    ]
    return [path for path in paths if len(path) >= 6]  # a legend's is a box


def test_stacked_areas_stand_on_each_other_and_fill_the_chart() -> None:
    shares = {"a": [(1, 0.25), (2, 0.5), (3, 0.75)], "עברית": [(1, 0.75), (2, 0.5), (3, 0.25)]}
    svg = grid({"layer 1": shares, "layer 2": shares, "layer 3": shares}, "step", stacked=True)
    lower, upper = (areas(svg, colour) for colour in COLOURS[:2])
    assert len(lower) == len(upper) == 3
    for low, high in zip(lower, upper, strict=True):
        bottom, top = max(y for _, y in low), min(y for _, y in high)  # down is positive in SVG
        height = bottom - top
        assert {round((bottom - y) / height, 2) for _, y in low} == {0.0, 0.25, 0.5, 0.75}
        assert {round((bottom - y) / height, 2) for _, y in high} == {0.25, 0.5, 0.75, 1.0}
    written = ["".join(element.itertext()).strip() for element in parse(svg).iter(f"{SVG}text")]
    assert written.count("עברית") == written.count("layer 3") == 1  # one legend for all charts


def test_a_name_has_one_look_in_every_chart() -> None:
    points = [(0, 1), (1, 2)]
    svg = grid({"one": {"x": points, "y": points}, "two": {"y": points}}, "step")
    drawn = [COLOURS.index(c.upper()) for c in re.findall(r"stroke: (#\w{6})", svg) if c.upper() in COLOURS]
    assert sorted(drawn) == [0, 0, 1, 1, 1]  # each once in the legend, x in one chart and y in two
