"""Exam answers equal lm-eval's own run of the same files, and a plain recomputation from logits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from polyclinic.corpus.pack.pack import load_tokenizer
from polyclinic.evaluate.exams import Answer, ask
from polyclinic.evaluate.prompting import document
from polyclinic.evaluate.run import PROTOCOL, documents_of
from polyclinic.evaluate.tasks import single_answer, task_name, write_tasks
from polyclinic.moe.checkpoint import load_model
from polyclinic.records import Question


@pytest.fixture(scope="module")
def folder(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exams")
    write_tasks(documents_of(questions, PROTOCOL), PROTOCOL, folder)
    return folder


@pytest.fixture(scope="module")
def tasks(questions: list[Question]) -> list[str]:
    return list(dict.fromkeys(task_name(q) for q in questions if single_answer(q)))


@pytest.fixture(scope="module")
def answers(models: dict[str, Path], folder: Path, tasks: list[str]) -> list[Answer]:
    return ask(models["mixture"], folder, tasks, batch_size=4)


@pytest.fixture(scope="module")
def stock(models: dict[str, Path], folder: Path, tasks: list[str]) -> Iterator[dict[str, Any]]:
    """What lm-eval says by itself, from the folder that holds the task files."""
    mixture = models["mixture"]
    vocabulary = AutoTokenizer.from_pretrained(mixture, local_files_only=True)
    model = HFLM(pretrained=load_model(mixture).eval(), tokenizer=vocabulary, device="cpu", batch_size=1)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        manager = TaskManager(include_path="tasks", include_defaults=False)
        yield simple_evaluate(model, tasks=tasks, task_manager=manager, bootstrap_iters=0)


@torch.no_grad()
def plain_scores(model: PreTrainedModel, tokenizer: Tokenizer, question: Question) -> list[float]:
    """Sum log-softmax over the tokens of each option, one forward an option."""
    made = document(question, (), PROTOCOL)
    assert made is not None
    prompt = tokenizer.encode(made["prompt"]).ids
    scores = []
    for option in question.options:
        tokens = tokenizer.encode(f"{made['prompt']} {option}").ids
        assert tokens[: len(prompt)] == prompt
        logits = model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        scores.append(sum(logits[i - 1, tokens[i]].item() for i in range(len(prompt), len(tokens))))
    return scores


def test_every_single_answer_question_is_answered_once(questions: list[Question], answers: list[Answer]) -> None:
    expected = {(task_name(q), q.id, q.answers[0]) for q in questions if single_answer(q)}
    assert {(a.task, a.id, a.gold) for a in answers} == expected
    assert len(answers) == len(expected)


def test_scores_and_picks_are_those_of_a_plain_loop(
    models: dict[str, Path], questions: list[Question], answers: list[Answer]
) -> None:
    by_id = {a.id: a for a in answers}
    model, (tokenizer, _) = load_model(models["mixture"]).eval(), load_tokenizer(models["mixture"])
    differ = []
    for question in filter(single_answer, questions):
        scores = plain_scores(model, tokenizer, question)
        assert by_id[question.id].log_likelihoods == pytest.approx(scores, rel=1e-5)
        per_byte = [s / len(o.encode()) for s, o in zip(scores, question.options, strict=True)]
        assert by_id[question.id].picked == int(np.argmax(per_byte))
        differ.append(int(np.argmax(scores)) != int(np.argmax(per_byte)))
    assert any(differ)  # sums alone would have picked others


def test_accuracy_per_byte_is_lm_evals_own(answers: list[Answer], stock: dict[str, Any], tasks: list[str]) -> None:
    for task in tasks:
        own = [a.picked == a.gold for a in answers if a.task == task]
        assert stock["results"][task]["acc_bytes,none"] == pytest.approx(np.mean(own))


def test_plain_accuracy_is_lm_evals_own(answers: list[Answer], stock: dict[str, Any], tasks: list[str]) -> None:
    for task in tasks:
        own = [int(np.argmax(a.log_likelihoods)) == a.gold for a in answers if a.task == task]
        assert stock["results"][task]["acc,none"] == pytest.approx(np.mean(own))


def test_batches_of_another_size_give_the_same_scores(
    models: dict[str, Path], folder: Path, tasks: list[str], answers: list[Answer]
) -> None:
    again = ask(models["mixture"], folder, tasks[:2], batch_size=32)
    for one, other in zip([a for a in answers if a.task in tasks[:2]], again, strict=True):
        assert one[:4] == other[:4]
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, rel=1e-5)


def test_asking_leaves_folder_and_settings_as_they_were(
    models: dict[str, Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = datasets.config.HF_DATASETS_CACHE
    files = sorted(folder.rglob("*"))
    with pytest.raises(Exception, match="not_there"):
        ask(models["base"], folder, ["not_there"], batch_size=1)
    assert before == datasets.config.HF_DATASETS_CACHE
    assert Path.cwd() == tmp_path
    assert sorted(folder.rglob("*")) == files
