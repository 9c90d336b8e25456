"""Loading: what is scored and what is shown are apart, the same every time, and every fault is one line."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from exam_files import SCORED, SHOWN, row, rows, write
from polyclinic.errors import DataError, UsageError
from polyclinic.evaluate.suite import loading
from polyclinic.evaluate.suite.loading import OTHER, TEST, TWICE, load, load_all
from polyclinic.evaluate.suite.rows import PICTURE
from polyclinic.evaluate.suite.table import Exam, exams

HEADQA, BIOLOGY, MMLU = exams()["headqa"], exams()["exams_biology"], exams()["mmlu_medical"]


def folder(root: Path, exam: Exam, found: list[dict[str, Any]]) -> Path:
    write(root / exam.file, found)
    return root


def test_every_local_exam_loads_in_every_language(data: Path) -> None:
    for loaded in load_all(["all-local"]):
        exam = loaded.exam
        ids = {q.id for q in loaded.questions}
        assert len(ids) == len(loaded.questions) >= SCORED - exam.pool
        assert not ids & {q.id for q in loaded.pool}
        assert not {q.group for q in loaded.questions} & {q.group for q in loaded.pool}
        assert {q.language for q in (*loaded.questions, *loaded.pool)} == {loaded.language}
        assert {q.source for q in loaded.questions} == {exam.name}
        assert {q.split for q in loaded.questions} == {exam.split}
        if exam.kind == "local":
            assert len(loaded.pool) == (SHOWN * len(exam.shots) or exam.pool)


def test_a_record_becomes_the_question_it_states(tmp_path: Path) -> None:
    exam = exams()["pubmedqa"]
    given = [row(exam, "en", "test", n, answer="B") for n in range(3)]
    question = load(exam, "en", folder(tmp_path, exam, [*given, row(exam, "en", "train", 0)])).questions[1]
    assert question.question == given[1]["question"]
    assert question.options == tuple(given[1]["options"].values())
    assert (question.answers, question.licence, question.context) == ((1,), "CC0-1.0", "a passage about 1")
    assert (question.id, question.group) == (given[1]["id"], given[1]["parallel_id"])


def test_several_right_answers_are_all_kept(data: Path) -> None:
    questions = load(exams()["frenchmedmcqa"], "fr").questions
    assert {len(q.answers) for q in questions} == {1, 2}
    assert all(q.answers == tuple(sorted(q.answers)) for q in questions)


def test_examples_that_stand_in_what_is_scored_or_in_another_exam_are_left_out_and_counted(tmp_path: Path) -> None:
    scored = [row(HEADQA, "es", "test", n) for n in range(3)]
    spare = [row(HEADQA, "es", "dev", n) for n in range(6)]
    spare[0]["also_in"] = ["test"]
    spare[1]["overlaps_with"] = "casimedicos:train-7"
    spare[2]["parallel_id"] = scored[0]["parallel_id"]
    spare[3] |= {"question": scored[1]["question"].upper() + "?", "options": scored[1]["options"]}
    spare[5] |= {
        "question": spare[4]["question"],
        "options": dict(zip("DCBA", spare[4]["options"].values(), strict=True)),
    }
    loaded = load(HEADQA, "es", folder(tmp_path, HEADQA, scored + spare))
    assert [q.id for q in loaded.pool] == [spare[4]["id"]]
    assert loaded.left_out == Counter({TEST: 1, OTHER: 1, loading.SCORED: 2, TWICE: 1})
    assert [q.id for q in loaded.questions] == [r["id"] for r in scored]


def test_what_also_stands_in_a_split_that_is_not_scored_may_be_shown(tmp_path: Path) -> None:
    spare = [row(HEADQA, "es", "dev", 0, also_in=["train"])]
    loaded = load(HEADQA, "es", folder(tmp_path, HEADQA, [row(HEADQA, "es", "test", 0), *spare]))
    assert len(loaded.pool) == 1


def test_a_pool_is_the_same_whatever_the_order_of_the_file_and_in_every_language(tmp_path: Path) -> None:
    found = rows(MMLU, "en")
    first = load(MMLU, "en", folder(tmp_path / "a", MMLU, found))
    second = load(MMLU, "en", folder(tmp_path / "b", MMLU, found[::-1]))
    assert {q.id for q in first.pool} == {q.id for q in second.pool}
    order = sorted((r["parallel_id"] for r in found), key=lambda group: hashlib.sha256(group.encode()).digest())
    assert {q.group for q in first.pool} == set(order[: MMLU.pool])
    assert (len(first.questions), len(first.pool)) == (SCORED, MMLU.pool)
    other = MMLU.model_copy(update={"languages": ["en", "de"]})
    german = load(other, "de", folder(tmp_path / "c", MMLU, rows(other, "de")))
    assert {q.group for q in german.pool} == {q.group for q in first.pool}


def test_no_question_is_shown_that_says_what_a_scored_one_says(tmp_path: Path) -> None:
    found = rows(MMLU, "en")
    same = [dict(r, question="the same", options=dict.fromkeys("ABCD", "x")) for r in found[:20]]
    loaded = load(MMLU, "en", folder(tmp_path, MMLU, same + found[20:]))
    assert "the same" not in {q.question for q in loaded.pool}
    assert len(loaded.questions) == len(found) - len(loaded.pool)


def test_a_language_without_examples_of_its_own_takes_them_from_what_is_scored(data: Path) -> None:
    arabic = [r for r in rows(BIOLOGY, "ar") if r["split"] == "test"]
    assert len(load(BIOLOGY, "bg").questions) == SCORED + BIOLOGY.pool
    root = data.parent / "no-train"
    write(root / BIOLOGY.file, arabic)
    loaded = load(BIOLOGY, "ar", root)
    assert (len(loaded.questions), len(loaded.pool)) == (SCORED, BIOLOGY.pool)


def test_questions_that_need_a_picture_are_counted(tmp_path: Path) -> None:
    found = [row(HEADQA, "es", "test", n, image_referenced=n < 2) for n in range(5)]
    loaded = load(HEADQA, "es", folder(tmp_path, HEADQA, [*found, row(HEADQA, "es", "dev", 0)]))
    assert (len(loaded.questions), loaded.left_out[PICTURE]) == (3, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "E"}, r"headqa_es.jsonl:2: the answer 'E' is none of 4 options"),
        ({"answer": ["A", "B"]}, r":2: several right answers where the exam has one"),
        ({"options": "none"}, r":2: options are no list|no question"),
        ({"options": 4}, r":2: options are no list or object of options"),
        ({"question": " "}, r":2: question is missing or no text"),
    ],
)
def test_a_broken_record_is_an_error_that_names_file_and_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    found = [row(HEADQA, "es", "test", 0), row(HEADQA, "es", "test", 1, **change), row(HEADQA, "es", "dev", 0)]
    if change.get("options") == "none":
        found = found[1:2]
    with pytest.raises(DataError, match=said) as caught:
        load(HEADQA, "es", folder(tmp_path, HEADQA, found))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("bytes_", "said"),
    [
        (b'{"id": 1}\n{"id": \n', ":2: not a JSON object on one line"),
        (b"[1]\n", ":1: a JSON value that is not an object"),
        (b'\n{"id": "\xff"}\n', ":2: byte 8 is not UTF-8"),
        (b"", "no question of headqa in 'es' in the split 'test'"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_line(tmp_path: Path, bytes_: bytes, said: str) -> None:
    path = tmp_path / HEADQA.file
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes_)
    with pytest.raises(DataError, match=said):
        load(HEADQA, "es", tmp_path)


def test_no_folder_no_file_and_no_variable_are_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"headqa_es.jsonl: no such file"):
        load(HEADQA, "es", tmp_path)
    with pytest.raises(DataError, match="is no folder; set POLYCLINIC_DATA"):
        load(HEADQA, "es", tmp_path / "gone")
    monkeypatch.delenv("POLYCLINIC_DATA", raising=False)
    with pytest.raises(DataError, match="POLYCLINIC_DATA: is not set"):
        load_all(["headqa"])


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    for count in (2, 3):
        folder(tmp_path, HEADQA, [row(HEADQA, "es", s, n) for s in ("test", "dev") for n in range(count)])
        assert len(load(HEADQA, "es", tmp_path).questions) == count


def test_what_lm_eval_has_itself_names_its_tasks() -> None:
    with pytest.raises(UsageError, match="careqa_es: is lm-eval's own; run lm_eval --tasks careqa_es"):
        load(exams()["careqa"], "es")


def test_the_real_files_are_scored_whole(real: Path) -> None:
    """Counted apart from our reader: the lines of each split in each language, less the pool where one is taken."""
    for loaded in load_all([name for name, exam in exams().items() if exam.kind == "local"], root=real):
        exam = loaded.exam
        lines = [json.loads(line) for line in (real / exam.file).read_text("utf-8").splitlines()]
        own = Counter(r["split"] for r in lines if r["language"] == loaded.language)
        taken = 0 if any(own[split] for split in exam.shots) else exam.pool
        assert len(loaded.questions) == own[exam.split] - taken
        assert len(loaded.pool) >= 8
        assert not any(r.get("image_referenced") for r in lines)
        sizes = {len(q.options) for q in (*loaded.questions, *loaded.pool)}
        assert exam.options[0] <= min(sizes) <= max(sizes) <= exam.options[1]
        assert exam.several == any(len(q.answers) > 1 for q in loaded.questions)
