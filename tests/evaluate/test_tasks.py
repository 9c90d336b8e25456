"""Task files: plain lm-eval YAML without code or places, one for each exam and language, in every scoring."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from polyclinic.errors import DataError
from polyclinic.evaluate.parts import of_corpus
from polyclinic.evaluate.prompting import document
from polyclinic.evaluate.protocol import PROTOCOLS, Protocol
from polyclinic.evaluate.sheets import documents
from polyclinic.evaluate.tasks import stops, write_tasks
from polyclinic.evaluate.tasks import task_name as name_of
from polyclinic.records import Question

OPTION = PROTOCOLS["option"]


def task_name(question: Question) -> str:
    return name_of(question.source, question.language)


def documents_of(questions: Sequence[Question], protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    return documents(of_corpus(questions), protocol)[0]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def all_documents(questions: Sequence[Question], protocol: Protocol, several: bool) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for question in questions:
        made = document(question, (), protocol, several)
        assert made is not None
        out.setdefault(task_name(question), []).append(made)
    return out


def loaded(names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Task]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    tasks = TaskManager(include_path="tasks", include_defaults=False).load(names)["tasks"]
    assert set(tasks) == set(names)
    return dict(tasks)


def test_each_exam_and_language_is_a_task_with_its_questions(questions: list[Question], tmp_path: Path) -> None:
    names = write_tasks(documents_of(questions, OPTION), OPTION, tmp_path)
    assert len(names) == len(set(names)) == len({(q.source, q.language) for q in questions})
    written = {name: lines(tmp_path / "tasks" / f"{name}.jsonl") for name in names}
    for question in questions:
        ids = [entry["id"] for entry in written[task_name(question)]]
        assert (question.id in ids) == (len(question.answers) == 1)
    assert sum(map(len, written.values())) == sum(len(q.answers) == 1 for q in questions)


def test_a_line_is_the_document_as_given(questions: list[Question], tmp_path: Path) -> None:
    given = all_documents(questions, OPTION, several=False)
    write_tasks(given, OPTION, tmp_path)
    assert {name: lines(tmp_path / "tasks" / f"{name}.jsonl") for name in given} == given


def test_task_files_name_no_code_and_no_place(questions: list[Question], tmp_path: Path) -> None:
    for protocol in PROTOCOLS.values():
        for name in write_tasks(all_documents(questions, protocol, several=False), protocol, tmp_path):
            text = (tmp_path / "tasks" / f"{name}.yaml").read_text("utf-8")
            assert "!" not in text
            assert str(tmp_path) not in text
            data = yaml.safe_load(text)["dataset_kwargs"]["data_files"]["test"]
            assert not Path(data).is_absolute()
            assert (tmp_path / data).is_file()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("scoring", ["letter", "option"])
def test_lm_eval_compares_the_choices_of_a_document(
    scoring: str, several: bool, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = PROTOCOLS[scoring]
    names = write_tasks(all_documents(questions, protocol, several), protocol, tmp_path)
    tasks = loaded(names, tmp_path, monkeypatch)
    seen = 0
    for question in questions:
        task, expected = tasks[task_name(question)], document(question, (), protocol, several)
        assert expected is not None
        entry = next(d for d in task.test_docs() if d["id"] == question.id)
        requests = task.construct_requests(entry, expected["prompt"])
        assert task.doc_to_text(entry) == expected["prompt"]
        assert [r.arguments for r in requests] == [(expected["prompt"], f" {c}") for c in expected["choices"]]
        assert int(task.doc_to_target(entry)) == expected["gold"]
        seen += 1
    assert seen == len(questions)
    metrics = {
        metric["metric"] for metric in yaml.safe_load((tmp_path / f"tasks/{names[0]}.yaml").read_text())["metric_list"]
    }
    assert metrics == ({"acc", "acc_bytes"} if scoring == "option" else {"acc"})


@pytest.mark.parametrize("scoring", ["generate", "chain", "paper"])
def test_lm_eval_lets_the_model_write_as_the_protocol_says(
    scoring: str, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = PROTOCOLS[scoring]
    names = write_tasks(all_documents(questions, protocol, several=False), protocol, tmp_path)
    tasks = loaded(names, tmp_path, monkeypatch)
    for question in questions[:8]:
        task, expected = tasks[task_name(question)], document(question, (), protocol)
        assert expected is not None
        entry = next(d for d in task.test_docs() if d["id"] == question.id)
        request = task.construct_requests(entry, task.doc_to_text(entry))
        context, settings = (request[0] if isinstance(request, list) else request).arguments
        assert context == expected["prompt"]
        assert settings["max_gen_toks"] == protocol.new_tokens
        assert settings["until"] == stops(question.language, protocol)
        assert settings["do_sample"] is False
        assert task.process_results(entry, [expected["gold"]]) == {"exact_match": 1.0}
        assert task.process_results(entry, ["Z"]) == {"exact_match": 0.0}


def test_an_answer_ends_where_a_new_question_begins() -> None:
    assert stops("zh", PROTOCOLS["generate"]) == ["\n\n", "\n问题:", "\nUser:"]
    assert stops("zh", PROTOCOLS["chain"]) == ["\n问题:", "\nUser:"]  # reasoning has paragraphs
    assert stops("zh", PROTOCOLS["paper"]) == ["<|endoftext|>"]


def test_a_task_without_questions_is_not_written(questions: list[Question], tmp_path: Path) -> None:
    several = [q for q in questions if len(q.answers) > 1]
    assert several
    assert write_tasks(documents_of(several, OPTION), OPTION, tmp_path) == []
    assert write_tasks({"empty": []}, OPTION, tmp_path) == []
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_language_without_exam_words_names_the_file_to_add(questions: list[Question], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/words/xx\.yaml: no exam words for language 'xx'"):
        write_tasks(documents_of([replace(questions[0], language="xx")], OPTION), OPTION, tmp_path)
