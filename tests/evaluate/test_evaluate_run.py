"""The evaluate step: the same items and texts for every model, scores with what they are worth, no text kept."""

import json
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic.evaluate.exams import Answer
from polyclinic.evaluate.report import fragments, macro, summary
from polyclinic.evaluate.run import limit, run, table
from polyclinic.evaluate.statistics.intervals import wilson
from polyclinic.evaluate.tasks import task_name
from polyclinic.progress import Silent
from polyclinic.recipe import EvaluateSection
from polyclinic.records import Question


@pytest.fixture(scope="module")
def done(models: dict[str, Path], questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    texts = [*small.documents(2), *small.documents(3, "held_out", seed=1)]
    run(EvaluateSection(max_questions=3, batch_size=8), models, texts, questions, folder, Silent())
    return folder


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text("utf-8"))


def items(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"items-{name}.jsonl").read_text("utf-8").splitlines()]


def answer(question: Question, picked: int) -> Answer:
    scores = [-1.0] * len(question.options)
    return Answer(task_name(question), question.id, question.answers[0], picked, scores)


@pytest.mark.parametrize("cap", [1, 3, None])
def test_each_task_keeps_its_first_questions(questions: list[Question], cap: int | None) -> None:
    for name in {task_name(q) for q in questions}:
        own = [q for q in questions if task_name(q) == name]
        assert [q for q in limit(questions, cap) if task_name(q) == name] == own[:cap]


def test_a_row_counts_right_answers_and_says_what_chance_would(questions: list[Question]) -> None:
    own = [q for q in questions if task_name(q) == task_name(questions[0]) and len(q.answers) == 1]
    right = [answer(q, q.answers[0] if i < 2 else q.answers[0] - 1) for i, q in enumerate(own)]
    (row,) = table(questions, right)
    assert (row["exam"], row["language"], row["n"]) == (own[0].source, own[0].language, len(own))
    assert row["accuracy"] == 2 / len(own)
    assert (row["low"], row["high"]) == wilson(2, len(own))
    assert row["chance"] == pytest.approx(sum(1 / len(q.options) for q in own) / len(own))
    most = max(sum(q.answers[0] == position for q in own) for position in range(5))
    assert row["constant"] == most / len(own)


def test_every_model_is_asked_the_same(done: Path, questions: list[Question]) -> None:
    result = scores(done)
    assert result["models"] == ["base", "mixture"]
    assert result["several_answers"] == sum(len(q.answers) > 1 for q in limit(questions, 3))
    base, mixture = (items(done, name) for name in result["models"])
    assert [(i["task"], i["id"], i["gold"]) for i in base] == [(i["task"], i["id"], i["gold"]) for i in mixture]
    assert len(base) == sum(len(q.answers) == 1 for q in limit(questions, 3))
    for name in result["models"]:
        assert {code: row["documents"] for code, row in result["loss"][name].items()} == dict.fromkeys(
            small.LANGUAGES, 3
        )
    assert base != mixture


def test_scores_follow_from_the_items(done: Path) -> None:
    for name in ("base", "mixture"):
        own = items(done, name)
        rows = scores(done)["exams"][name]
        right = sum(i["picked"] == i["gold"] for i in own)
        assert sum(row["accuracy"] * row["n"] for row in rows) == pytest.approx(right)
        assert sum(row["n"] for row in rows) == len(own)


def test_items_carry_ids_and_numbers_and_no_text(done: Path, questions: list[Question]) -> None:
    for entry in items(done, "mixture"):
        assert set(entry) == {"task", "id", "gold", "picked", "log_likelihoods"}
        assert all(isinstance(value, float) for value in entry["log_likelihoods"])
        assert entry["id"] in {q.id for q in questions}


def test_a_run_without_exams_still_scores_text(models: dict[str, Path], tmp_path: Path) -> None:
    texts = small.documents(1, "held_out")
    run(EvaluateSection(), models, texts, [], tmp_path, Silent())
    assert scores(tmp_path)["exams"] == {"base": [], "mixture": []}
    assert "No exam questions" in fragments(tmp_path)[0].html


def test_the_mean_over_languages_pools_exams_by_item() -> None:
    rows = [
        {"language": "en", "n": 30, "accuracy": 0.5},
        {"language": "en", "n": 10, "accuracy": 1.0},
        {"language": "th", "n": 1, "accuracy": 0.0},
    ]
    assert macro(rows, "accuracy") == pytest.approx((25 / 40 + 0) / 2)


def test_the_summary_counts_rows_whose_whole_interval_beats_chance() -> None:
    lows = {"ar": 0.26, "en": 0.25, "th": 0.1}
    same = {"n": 9, "chance": 0.25, "accuracy": 0.5, "constant": 0.3}
    rows = [{"language": code, "low": low, **same} for code, low in lows.items()]
    assert "1 of 3 rows" in summary(rows)
    assert "50.0 % (chance 25.0 %, best constant answer 30.0 %)" in summary(rows)


def test_the_section_has_a_row_for_each_exam_and_language(done: Path) -> None:
    exams, loss = fragments(done)
    assert exams.html.count("<tr>") - 1 == len(scores(done)["exams"]["mixture"])
    assert loss.html.count("<tr>") - 1 == len(small.LANGUAGES)
    assert "questions with several right answers were not scored" in exams.html
