"""`corpus mix`: the table that packing will follow, without packing."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyclinic.cli import main

RECIPE = """name: mixed
corpus:
  check_language: report
  held_out: 0.0
  texts: [{path: t.jsonl}]
  mix: {sources: {book: {epochs: 2}}, families: {en: 60}}
base: {from_scratch: {vocab_size: 400, hidden_size: 32, intermediate_size: 48, num_layers: 2, num_heads: 2, steps: 1}}
train: {steps: 1}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    rows = [("en", "book", 100), ("en", "web", 50), ("ru", "book", 30), ("ru", "web", 70)]
    lines = [{"language": code, "source": source, "text": "x" * n, "licence": "MIT"} for code, source, n in rows]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "r.yaml").write_text(RECIPE)
    assert (
        main(
            ["corpus", "build", str(folder / "r.yaml"), "--set", f"corpus.root={folder}", "--out", str(folder / "out")]
        )
        == 0
    )
    return folder


def said(corpus: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    capsys.readouterr()
    assert main(["corpus", "mix", str(corpus / "r.yaml"), "--corpus", str(corpus / "out"), *more]) == 0
    return capsys.readouterr().out


def test_the_table_counts_before_and_after_on_every_axis(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(corpus, capsys, "--json"))
    assert found["unit"] == "characters"
    by = {axis: {row["name"]: row for row in found[axis]} for axis in ("language", "source", "category", "family")}
    assert by["language"]["ru"]["packed"] == 2 * 30 + 70
    assert by["language"]["ru"]["epochs"] == pytest.approx(1.3)
    assert by["source"]["book"]["tokens"] == 130
    assert by["category"]["not said"]["documents"] == 4
    assert by["family"]["Balto-Slavic"]["before"] == pytest.approx(100 / 250)
    for axis in by.values():
        assert sum(row["after"] for row in axis.values()) == pytest.approx(1)
        assert sum(row["packed"] for row in axis.values()) == 130  # of 60 for English no document is the nearest
    text = said(corpus, capsys).splitlines()
    assert [word for line in text for word in line.split()[:1] if word in by] == [
        "family",
        "language",
        "source",
        "category",
    ]
    assert sorted(p.name for p in (corpus / "out").iterdir()) == [".shards", "corpus", "run.lock"]


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("corpus.mix.sources.boook.epochs=1", "did you mean 'book'?"),
        ("corpus.mix.weights.languages.rw=1", "languages names"),
        ("corpus.mix.weights.languages.xq=1", "unknown language 'xq'"),
        ("corpus.mix.weights.sources.book=-1", "greater than or equal to 0"),
        ("corpus.mix.weights.sources={book: 0, web: 0}", "weights sum to 0"),
        ("corpus.mix.families.Slavic=3", "there is no family 'Slavic'"),
    ],
)
def test_a_mixture_that_means_nothing_is_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str], assignment: str, part: str
) -> None:
    languages = ["--set", "corpus.languages=[en, ru]"]
    argv = ["corpus", "mix", str(corpus / "r.yaml"), *languages, "--set", assignment, "--corpus", str(corpus / "out")]
    assert main(argv) == 3
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
