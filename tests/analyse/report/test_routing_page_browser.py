"""The page of an analysis in a real browser: wide and narrow, light and dark, every script drawn."""

import re
from pathlib import Path

import pytest

from browser import CHROMIUM, measured
from polyclinic.analyse.report.plates import Part, fragments_of
from polyclinic.page import routes_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_nothing_overflows_and_every_script_is_drawn(
    sections: list[Part], tmp_path: Path, width: int, dark: bool
) -> None:
    html = routes_page("routing", [], fragments_of(sections), {})
    seen = measured(html, tmp_path, width, dark)
    assert seen["reach"][0] <= seen["reach"][1]
    assert seen["1200"] <= 1200
    assert seen["400"] <= 400
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in seen["colours"])
    assert (ink > paper) == dark
    assert seen["ink"] == seen["colours"][0]
    scripts = {lang: direction for lang, direction, _ in seen["names"]}
    assert {lang.split("-")[1] for lang in scripts} >= {"Arab", "Deva", "Thai", "Latn"}
    assert {direction for lang, direction in scripts.items() if lang.endswith("Arab")} == {"rtl"}
    assert {direction for lang, direction in scripts.items() if not lang.endswith("Arab")} == {"ltr"}
    assert all(size > 5 for *_, size in seen["names"])
