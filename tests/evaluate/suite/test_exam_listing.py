"""`polyclinic evaluate list` and `tasks-path`: what is here, what is not, and who has no exam."""

import json
from pathlib import Path
from typing import Any

import pytest

from exam_files import SCORED, TERMS
from polyclinic.cli import main
from polyclinic.evaluate.suite.listing import missing, rows
from polyclinic.evaluate.suite.loading import load
from polyclinic.evaluate.suite.table import exams, tasks_folder
from polyclinic.families import fifty

Capture = pytest.CaptureFixture[str]


def listed(capsys: Capture, *options: str) -> Any:
    assert main(["evaluate", "list", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_exam_is_listed_with_its_questions_where_its_files_are(data: Path, inside: Path, capsys: Capture) -> None:
    found = {row["exam"]: row for row in listed(capsys)["exams"]}
    assert list(found) == list(exams())
    assert found["headqa"]["questions"] == SCORED
    assert found["medmcqa"]["by_language"] == {"en": SCORED}
    assert found["tico19_terms_derived"]["questions"] == 40 * (TERMS - 20)
    kinds = {(row["kind"], row["available"], row["questions"] is None) for row in found.values()}
    assert kinds == {
        ("local", "here", False), ("derived", "here", False),
        ("hub", "needs the hub", True), ("lm-eval", "in lm-eval", True),
    }  # fmt: skip


def test_without_the_data_it_is_said_what_is_needed(
    inside: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYCLINIC_DATA", raising=False)
    assert main(["evaluate", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    line = next(one for one in lines if one.startswith("headqa "))
    assert line.split()[1:4] == ["-", "4", "local"]
    assert "needs POLYCLINIC_DATA" in line
    assert "without an exam that is here: ar, de, en" in "\n".join(lines)
    assert lines[-1] == "without any exam: -"


def test_the_list_of_some_languages_shows_their_exams_alone(data: Path, inside: Path, capsys: Capture) -> None:
    found = listed(capsys, "--languages", "mt,sw,tet")
    assert {code for row in found["exams"] for code in row["languages"]} == {"mt", "sw"}
    assert found["missing"] == {"not here": ["mt", "tet"], "nowhere": ["tet"]}


def test_an_unknown_language_is_one_line_with_the_nearest(inside: Path, capsys: Capture) -> None:
    assert main(["evaluate", "list", "--languages", "swahilli"]) == 3
    assert "did you mean sw (Swahili)" in capsys.readouterr().err


def test_a_broken_file_is_an_error_of_the_list_too(data: Path, tmp_path: Path) -> None:
    from polyclinic.errors import DataError

    (tmp_path / "exams").mkdir()
    (tmp_path / "exams/headqa_es.jsonl").write_text("{\n", "utf-8")
    with pytest.raises(DataError, match=r"headqa_es.jsonl:1: not a JSON object"):
        rows(["es"], tmp_path)


def test_the_folder_of_tasks_is_printed_alone(inside: Path, capsys: Capture) -> None:
    assert main(["evaluate", "tasks-path"]) == 0
    assert capsys.readouterr().out == f"{tasks_folder()}\n"
    assert (tasks_folder() / "compare/headqa_es.yaml").is_file()


def test_the_counts_of_the_real_data_are_those_that_are_scored(real: Path) -> None:
    for row in rows(["lb", "ar"], real):
        for code, count in row["by_language"].items():
            assert count == len(load(exams()[row["exam"]], code, real).questions)


def test_languages_of_the_fifty_without_a_real_exam_are_those_without_files(real: Path) -> None:
    files = [real / exam.file for exam in exams().values() if exam.kind == "local"]
    spoken = {json.loads(line)["language"] for path in files for line in path.open(encoding="utf-8")}
    named = {path.stem for path in (real / "text").glob("*.jsonl") if '"tico19-terms"' in path.read_text("utf-8")} - {
        "en"
    }
    local = [row for row in rows(None, real) if row["available"] == "here"]
    assert set(missing(local)["not here"]) == set(fifty()) - spoken - named
