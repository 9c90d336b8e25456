"""The page of an analysis: its numbers are those of the files, and it is one small file that asks for nothing."""

import csv
import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import made_routes
import pytest

from polyclinic.analyse.measures import context, family, information
from polyclinic.analyse.report.about import answer
from polyclinic.analyse.report.fragments import cards, fragments, parts
from polyclinic.analyse.report.plates import Part, Plate, cell, csv_of, fragments_of, html_of, write_files
from polyclinic.families import fifty
from polyclinic.page import routes_page
from polyclinic.runs import write_json

MOST = 3_000_000  # bytes


def plates(found: list[Part]) -> list[Plate]:
    return [plate for part in found for plate in (*part.plates, *part.folded)]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


@pytest.fixture(scope="module")
def known(step: Path) -> set[float]:
    files = ("routing.json", "causal.json", "depth.json")
    return {v for name in files for v in leaves(json.loads((step / name).read_text("utf-8"))) if isinstance(v, float)}


def page(found: list[Part]) -> str:
    return routes_page("routing", [], fragments_of(found), {})


def test_every_number_of_every_table_stands_in_the_files(sections: list[Part], known: set[float]) -> None:
    found = plates(sections)
    assert len({plate.name for plate in found}) == len(found) >= 22
    for plate in found:
        numbers = [v for row in plate.rows for v in row if isinstance(v, float)]
        assert set(numbers) <= known, plate.name
        read_back = list(csv.reader(StringIO(csv_of(plate))))
        assert read_back[0] == list(plate.head)
        assert {float(v) for row in read_back[1:] for v in row if re.fullmatch(r"-?\d+\.\d+(e-\d+)?", v)} >= set(
            numbers
        )


def test_what_a_caption_says_is_a_rounded_number_of_the_files(sections: list[Part], known: set[float]) -> None:
    rounded = {f"{abs(v):.3f}" for v in known} | {"0.125", "0.143"}  # an even share is one over the experts
    for plate in plates(sections):
        assert set(re.findall(r"\d+\.\d{3}", plate.says)) <= rounded, plate.says


def test_a_figure_has_its_number_n_reading_and_table(sections: list[Part]) -> None:
    for place, plate in enumerate(plates(sections), 1):
        html = html_of(plate, place)
        for word in (f"Figure {place}. ", f"({plate.n:,} ", "<svg", f"<summary>Figure {place} as a table</summary>"):
            assert word in html, plate.name
        assert plate.n > 0
        assert plate.read.endswith(".")
        if plate.shown is None:
            assert all(cell(value) in html for row in plate.rows for value in row)


def test_files_lie_beside_the_page(sections: list[Part], tmp_path: Path) -> None:
    few = [Part("x", "y", plates(sections)[:2])]
    assert write_files(few, tmp_path / "figures") == 2
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{p.name}.{kind}" for p in few[0].plates for kind in ("svg", "png", "csv")}
    assert (tmp_path / "figures" / f"{few[0].plates[0].name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_asks_for_nothing_and_runs_nothing(sections: list[Part]) -> None:
    html = page(sections)
    assert not re.search(r"<script|<link|<iframe|@import|javascript:|\son\w+=", html)
    assert not re.findall(r"""(?:src|href|url\()=?["']?(?!#|data:image/png)(?:https?:)?//""", html)
    assert set(re.findall(r"<(b)>&", html)) == set()  # names of families are text
    assert "0 &lt;b&gt;&amp;" in html


def test_right_to_left_names_and_tokens_carry_their_direction(sections: list[Part]) -> None:
    html = page(sections)
    arabic = "\u0627\u0644\u0639\u0631\u0628\u064a\u0629"
    names = re.findall(rf"<(\w+)([^>]*)>{arabic}</", html)
    assert len(names) > 10
    assert {attributes for _, attributes in names} == {' lang="ar-Arab" dir="rtl"'}


def test_a_page_of_fifty_languages_and_24_layers_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (information, context, family):  # draws cost time, not room
        monkeypatch.setattr(module, "RESAMPLES", 3)
    facts = made_routes.facts(fifty(), 24, 8, buckets=2, tokens=30, ids=6)
    write_json(tmp_path / "routing.json", facts)
    html = routes_page("routing", cards(facts), fragments(tmp_path), {})
    assert len(html.encode()) < MOST
    assert html.count("<caption>Layer ") == 24


@pytest.mark.parametrize(
    ("interval", "verb"), [([0.1, 0.3], "rises"), ([-0.3, -0.1], "falls"), ([-0.1, 0.1], "was not shown to change")]
)
def test_the_answer_on_depth_follows_the_interval(routes: Any, interval: list[float], verb: str) -> None:
    depth = {"slope": 0.1234, "slope_interval": interval, "late_over_early": None, "late_over_early_interval": None}
    facts = {**routes, "information": {"first_pick": {"I(E;L|T)": {"depth": depth}}}}
    assert f"{verb} with depth over layers 0 to 2: slope 0.123" in answer(facts)
    assert "hold no experts" not in answer(facts)
    assert "Layers below 4 hold no experts" in answer({**facts, "layers_of": [4, 5]})
    nothing = {**routes, "information": {"first_pick": {"I(E;L|T)": None}}}
    assert "cannot be said" in answer(nothing)


def test_what_covers_zero_is_blank_in_the_causal_picture(sections: list[Part]) -> None:
    causal = next(plate for plate in plates(sections) if plate.name == "causal")
    assert "0.123 nats per token: drop 0, layer 0" in causal.says
    worth = next(part for part in sections if causal in part.plates)
    assert "a <thing>" not in worth.html
    image = re.search(r'xlink:href="data:image/png;base64,\s*([^"]+)"', causal.drawing.svg)
    assert image is not None
    opaque = _opacity(image[1])
    assert opaque[0].min() == opaque[2].min() == 255
    assert opaque[1].max() == opaque[3].max() == 0


def _opacity(encoded: str) -> Any:
    from base64 import b64decode
    from io import BytesIO

    import matplotlib.image

    return (matplotlib.image.imread(BytesIO(b64decode(encoded)))[..., 3] * 255).astype(int)


def test_a_mixture_without_families_and_with_one_layer_and_pick_has_a_page(routes: Any, tmp_path: Path) -> None:
    facts = made_routes.facts(("en", "fr"), 1, 4, 1, buckets=2, tokens=30, ids=5)
    facts |= {"families": [], "expert_of": {}, "family": None, "own_expert": {}, "context": None}
    del facts["forced"]
    facts["circuits"]["groups"] = {k: v for k, v in facts["circuits"]["groups"].items() if "family" not in k}
    write_json(tmp_path / "routing.json", facts)
    html = page(parts(tmp_path))
    assert "With one pick a token no experts are picked together" in html
    assert "Families by experts" not in html
