"""`analyse compare`: figures of both by layer, paired pictures; other text is refused in one line."""

import json
from pathlib import Path
from typing import Any

import made_routes
import pytest

from polyclinic.cli import main
from polyclinic.runs import write_json

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def two(routes: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Write two analyses: of 3 layers with 8 experts, and of layers 1 to 4 with 4 of them."""
    other = made_routes.facts(layers=4, experts=4, buckets=4, tokens=60, ids=10)
    for name, facts in (("a", routes), ("b", json.loads(json.dumps(other)))):
        (tmp_path / name / "analyse").mkdir(parents=True)
        write_json(tmp_path / name / "analyse" / "routing.json", facts)
    return tmp_path / "a", tmp_path / "b"


def test_each_figure_stands_beside_that_of_the_same_layer(
    two: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main(["analyse", "compare", *map(str, two), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((out / "comparison.json").read_text("utf-8"))
    a, b = (json.loads((path / "analyse" / "routing.json").read_text("utf-8")) for path in two)
    rows = {(row["measure"], row["layer"]): row for row in result["rows"]}
    assert rows["Gini", 1]["a"] == {"value": a["balance"]["layers"][1]["gini"], "interval": None, "n": a["tokens"]}
    assert rows["Gini", 1]["b"]["value"] == b["balance"]["layers"][1]["gini"]
    held = b["information"]["first_pick"]["I(E;L|T)"]
    found = rows["I(E;L|T)", 3]
    assert found["a"] is None  # the first model ends a layer below
    assert found["b"] == {**{k: held["layers"][3][v] for k, v in (("value", "score"), ("interval", "interval"))},
                          "n": held["n"]}  # fmt: skip
    names = {path.name for path in (out / "figures").iterdir()}
    assert {f"compare_{kind}.{end}" for kind in ("layers", "maps") for end in ("svg", "png", "csv")} == names
    html = (out / "report.html").read_text("utf-8")
    assert all(f"{key}, layer {layer}<" in html for key in "AB" for layer in range(3))
    assert "A, layer 3<" not in html


def test_other_text_or_no_analysis_is_refused_in_one_line(
    two: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    path = two[1] / "analyse" / "routing.json"
    facts = json.loads(path.read_text("utf-8"))
    for text in ({"documents": 9, "digest": "f" * 16}, None):
        write_json(path, {**facts, "text": text})
        assert main(["analyse", "compare", *map(str, two), "--out", str(tmp_path / "out")]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "A and B routed other text" in error
    path.unlink()
    assert main(["analyse", "compare", *map(str, two), "--out", str(tmp_path / "out")]) == 3
    assert "holds no routing.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
