"""`polyclinic analyse depth`: a file and lines out of a dense checkpoint and a folder of records."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import small
from polyclinic.cli import main


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("depth")
    (root / "vocabulary").mkdir()
    return small.dense(root / "dense", small.tokenizer(root / "vocabulary"))


@pytest.fixture
def text(inside: Path) -> Path:
    return records(inside / "text", small.LANGUAGES[:3])


def records(folder: Path, languages: Sequence[str], number: int = 24, parallel: bool = True) -> Path:
    folder.mkdir()
    for code in languages:
        rows = [d for d in small.documents(number) if d.language == code]
        lines = [
            {"id": d.id, "language": code, "source": "s", "licence": "CC0-1.0", "text": d.text()}
            | ({"parallel_id": d.group} if parallel else {})
            for d in rows
        ]
        (folder / f"{code}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def depth_of(dense: Path, *arguments: str) -> int:
    return main(["analyse", "depth", str(dense), "--text", "text", "--out", "out", *arguments])


def test_it_writes_a_file_of_numbers_and_prints_the_layers(
    dense: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert depth_of(dense, "--documents", "20") == 0
    result = json.loads(Path("out/depth/depth.json").read_text("utf-8"))
    assert {code: row["documents"] for code, row in result["languages"].items()} == dict.fromkeys(
        ("ar", "en", "th"), 20
    )
    assert result["parallel"] == {"texts": 20, "pairs": 3}
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["layer", str(i)] for i in range(3)]
    assert "the last 2 whatever the model" in out
    assert depth_of(dense, "--documents", "20", "--json") == 0  # a finished step is not done again
    assert json.loads(capsys.readouterr().out) == result


def test_the_languages_that_are_named_are_read(dense: Path, text: Path) -> None:
    assert depth_of(dense, "--languages", "en,th") == 0
    assert set(json.loads(Path("out/depth/depth.json").read_text("utf-8"))["languages"]) == {"en", "th"}


def test_without_parallel_ids_the_similarity_is_left_out_and_said(
    dense: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(text)
    records(text, small.LANGUAGES[:2], parallel=False)
    assert depth_of(dense) == 0
    assert "similarity of translations left out: no two languages share 8 texts" in capsys.readouterr().out
    rows = json.loads(Path("out/depth/depth.json").read_text("utf-8"))["layers"]
    assert all("margin" not in row and "low" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--languages", "en"], 3, "text in one language, two at least"),
        (["--languages", "en,xx-none"], 3, "unknown language"),
        (["--documents", "4"], 3, "too little text in 'ar' (4 documents)"),
        (["--languages", "fr,de"], 3, "text in no language"),
    ],
)
def test_text_that_does_not_do_is_one_line(
    dense: Path, text: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, what: str
) -> None:
    assert depth_of(dense, *arguments) == code
    error = capsys.readouterr().err
    assert what in error
    assert error.splitlines()[-1].startswith("error: ")


def test_a_folder_without_records_is_one_line(dense: Path, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "text").mkdir()
    assert depth_of(dense) == 3
    assert capsys.readouterr().err.strip() == (
        "error: text: holds no .jsonl or .txt files; name a folder of texts, a file a language"
    )


def test_a_mixture_in_place_of_a_dense_model_is_one_line(
    dense: Path, text: Path, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.mixture(inside / "mixture", dense)
    capsys.readouterr()
    assert depth_of(Path("mixture")) == 4
    assert "error: mixture: is a mixture (num_experts " in capsys.readouterr().err
