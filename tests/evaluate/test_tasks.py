"""Task files: plain lm-eval YAML without code or places, one for each exam and language."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from lm_eval.tasks import TaskManager

from polyclinic.errors import DataError
from polyclinic.evaluate.tasks import item, single_answer, task_name, write_tasks
from polyclinic.prompts import exam_prompt
from polyclinic.records import Question


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_exam_and_language_is_a_task_with_all_its_questions(questions: list[Question], tmp_path: Path) -> None:
    names = write_tasks(questions, tmp_path)
    assert len(names) == len(set(names)) == len({(q.source, q.language) for q in questions})
    written = {name: lines(tmp_path / "tasks" / f"{name}.jsonl") for name in names}
    for question in questions:
        ids = [entry["id"] for entry in written[task_name(question)]]
        assert (question.id in ids) == (len(question.answers) == 1)
    assert sum(map(len, written.values())) == sum(map(single_answer, questions))


def test_an_item_holds_prompt_options_and_answer_as_given(questions: list[Question], tmp_path: Path) -> None:
    write_tasks(questions[:1], tmp_path)
    question = questions[0]
    expected = {
        "id": question.id,
        "prompt": exam_prompt(question),
        "options": list(question.options),
        "answer": question.answers[0],
    }
    assert lines(tmp_path / "tasks" / f"{task_name(question)}.jsonl") == [expected] == [item(question)]


def test_task_files_name_no_code_and_no_place(questions: list[Question], tmp_path: Path) -> None:
    for name in write_tasks(questions, tmp_path):
        text = (tmp_path / "tasks" / f"{name}.yaml").read_text("utf-8")
        assert "!" not in text
        assert str(tmp_path) not in text
        data = yaml.safe_load(text)["dataset_kwargs"]["data_files"]["test"]
        assert not Path(data).is_absolute()
        assert (tmp_path / data).is_file()


def test_lm_eval_finds_and_reads_the_tasks(
    questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_tasks(questions, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    manager = TaskManager(include_path="tasks", include_defaults=False)
    tasks = manager.load(names)["tasks"]
    question = next(q for q in questions if q.context)
    task = tasks[task_name(question)]
    entry = next(d for d in task.test_docs() if d["id"] == question.id)
    assert task.doc_to_text(entry) == exam_prompt(question)
    assert task.doc_to_choice(entry) == list(question.options)
    assert int(task.doc_to_target(entry)) == question.answers[0]


def test_questions_with_several_answers_make_no_task(questions: list[Question], tmp_path: Path) -> None:
    several = [q for q in questions if len(q.answers) > 1]
    assert several
    assert write_tasks(several, tmp_path) == []
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_language_without_exam_words_names_the_file_to_edit(questions: list[Question], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"words.csv: no exam words for language 'xx'"):
        write_tasks([replace(questions[0], language="xx")], tmp_path)
