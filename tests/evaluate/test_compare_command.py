"""`evaluate compare`: what it prints and writes, and one line for everything it cannot read."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_items import answered
from polyclinic.cli import main
from polyclinic.evaluate.answered import read_answered
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.evaluate.statistics.comparison import compare

Make = Callable[..., None]
PROTOCOL = PROTOCOLS["letter"].facts()


def items(seed: int, p: float) -> list[Item]:
    draw = np.random.default_rng(seed)
    return [x for code in ("en", "fr") for x in answered(draw, 80, p, language=code, scores=(0.0, -1.0, -2.0, -3.5))]


MODELS = {"good": items(1, 0.8), "bad": items(2, 0.4)}


@pytest.fixture
def run(inside: Path) -> Make:
    """Write what a run of evaluate leaves."""

    def make(folder: str, *models: str, protocol: dict[str, Any] | None = PROTOCOL) -> None:
        (inside / folder).mkdir(parents=True)
        sheets = [] if protocol is None else [{"name": name, "protocol": protocol} for name in models]
        scores = {"sheets": sheets}
        (inside / folder / "scores.json").write_text(json.dumps(scores))
        for name in models:
            lines = [json.dumps(i._asdict()) + "\n" for i in MODELS[name]]
            (inside / folder / f"items-{name}.jsonl").write_text("".join(lines))

    return make


def fails(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["evaluate", "compare", *argv]) == code
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_items_come_back_as_they_were_written(run: Make) -> None:
    run("a/evaluate", "good")
    run("b", "good", "bad")
    assert read_answered("a").items == read_answered("b:good").items == MODELS["good"]
    assert read_answered("b:bad").items == MODELS["bad"]
    assert read_answered("a").protocol == PROTOCOL


def test_a_table_and_a_sum_are_printed(run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run("a", "good")
    run("b", "bad")
    assert main(["evaluate", "compare", "a", "b"]) == 0
    said = capsys.readouterr().out
    assert "\nen " in said
    assert "\nfr " in said
    assert said.count("A better") == 4
    assert "A has more right in 2 of 2 languages" in said


def test_json_holds_the_comparison_and_out_the_same_as_files(
    run: Make, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a", "good", "bad")
    assert main(["evaluate", "compare", "a:good", "a:bad", "--json", "--out", "found"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value == json.loads((inside / "found" / "comparison.json").read_text())
    assert {k: v for k, v in value.items() if k in ("a", "b")} == {"a": "a:good", "b": "a:bad"}
    assert value["micro"] == compare(MODELS["good"], MODELS["bad"])["micro"]
    rows = (inside / "found" / "comparison.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 + 2


def test_other_protocols_are_refused_unless_asked_for(run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run("a", "good")
    run("b", "bad", protocol={**PROTOCOL, "shots": 3})
    said = fails(["a", "b"], 3, capsys)
    assert "shots 0 and 3" in said
    assert "--across-protocols" in said
    assert main(["evaluate", "compare", "a", "b", "--across-protocols"]) == 0
    assert "different protocols: shots 0 and 3" in capsys.readouterr().out


def test_a_run_without_a_protocol_is_not_taken_for_one_like_the_other(
    run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a", "good", protocol=None)
    run("b", "bad", protocol=None)
    assert "a names none; b names none" in fails(["a", "b"], 3, capsys)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "holds no scores.json"),
        ("a:gone", "has no sheet 'gone'; name one: a:bad, a:good"),
        ("a", "holds 2 sheets; name one: a:bad, a:good"),
        ("none", "holds 0 sheets; run evaluate again"),
    ],
)
def test_what_is_not_there_is_named(name: str, what: str, run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run("a", "good", "bad")
    run("none")
    assert what in fails([name, "a:good"], 3, capsys)
    assert what in fails(["a:good", name], 3, capsys)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-20],
        lambda line: "[]",
        lambda line: "",
        lambda line: "[" * 100_000,
        lambda line: line.replace('"options"', '"option"'),
        lambda line: line.replace('"gold": [', '"gold": ["x",'),
        lambda line: line.replace('"language": "en"', '"language": 7'),
        lambda line: line.replace("-3.5", '"high"'),
        lambda line: '{"task": "t", "id": "0", "gold": 1, "picked": 1, "log_likelihoods": [0.0]}',
    ],
    ids=["cut", "list", "empty", "deep", "unknown key", "gold", "language", "scores", "older version"],
)
def test_a_damaged_line_is_named(
    change: Callable[[str], str], run: Make, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a", "good")
    run("b", "bad")
    path = inside / "b" / "items-bad.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], change(lines[4]), *lines[5:]]))
    assert "items-bad.jsonl line 5: is no item of this version" in fails(["a", "b"], 3, capsys)


def test_bytes_that_are_no_text_and_no_items_are_one_line(
    run: Make, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("a", "good")
    run("b", "bad")
    (inside / "b" / "items-bad.jsonl").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in fails(["a", "b"], 3, capsys)
    (inside / "b" / "items-bad.jsonl").write_bytes(b"")
    assert "no items" in fails(["a", "b"], 3, capsys)
    (inside / "b" / "scores.json").write_text("{")
    assert "scores.json" in fails(["a", "b"], 3, capsys)


def test_what_is_read_is_not_written_into(run: Make, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("a/evaluate", "good")
    run("b", "bad")
    before = sorted(inside.rglob("*"))
    for out in ("a", "a/evaluate", "b"):
        assert "is also an input" in fails(["a", "b", "--out", out], 2, capsys)
    (inside / "file").write_text("mine")
    fails(["a", "b", "--out", "file"], 5, capsys)
    fails(["a", "b", "--out", "no/such"], 5, capsys)
    assert sorted(inside.rglob("*")) == sorted([*before, inside / "file"])


def test_models_are_compared_where_torch_is_not_loaded(run: Make, inside: Path) -> None:
    run("a", "good", "bad")
    code = (
        "import sys; from polyclinic.cli import main; main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'lm_eval', 'datasets'} & sys.modules.keys()"
    )
    argv = [sys.executable, "-c", code, "evaluate", "compare", "a:good", "a:bad"]
    done = subprocess.run(argv, cwd=inside, env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
