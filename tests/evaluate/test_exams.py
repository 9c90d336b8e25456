"""What is asked through lm-eval comes back whole, with the accuracies of lm-eval's own run of the same files."""

import contextlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.evaluate.exams import Answers, ask
from polyclinic.evaluate.parts import Part, of_corpus
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.evaluate.sheets import documents, items
from polyclinic.evaluate.tasks import write_tasks
from polyclinic.moe.checkpoint import load_model
from polyclinic.records import Question

PEERS = {"letter": "acc,none", "option": "acc_bytes,none"}


@pytest.fixture(scope="module")
def parts(questions: list[Question]) -> list[Part]:
    return of_corpus(questions)


@pytest.fixture(scope="module")
def model(models: dict[str, Path]) -> LocalModel:
    return LocalModel(models["mixture"])


@pytest.fixture(scope="module")
def asked(parts: list[Part], model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folder and answers of each scoring."""
    out = {}
    for name in PEERS:
        folder = tmp_path_factory.mktemp(name)
        tasks = write_tasks(documents(parts, PROTOCOLS[name])[0], PROTOCOLS[name], folder)
        out[name] = folder, ask(model, folder, tasks)
    return out


@pytest.mark.parametrize("name", list(PEERS))
def test_accuracy_is_that_of_lm_eval_alone_on_the_same_files(
    name: str, parts: list[Part], asked: dict[str, Any], models: dict[str, Path]
) -> None:
    folder, answers = asked[name]
    vocabulary = AutoTokenizer.from_pretrained(models["mixture"], local_files_only=True)
    stock = HFLM(pretrained=load_model(models["mixture"]).eval(), tokenizer=vocabulary, device="cpu", batch_size=4)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        manager = TaskManager(include_path="tasks", include_defaults=False)
        theirs = simple_evaluate(stock, tasks=list(answers.samples), task_manager=manager, bootstrap_iters=0)
    ours = items({part.task: part for part in parts}, PROTOCOLS[name], answers.samples)
    for task in answers.samples:
        right = [item.right for item in ours if item.task == task]
        assert theirs["results"][task][PEERS[name]] == pytest.approx(np.mean(right)), task
        assert answers.results["results"][task][PEERS[name]] == theirs["results"][task][PEERS[name]]


def test_asking_leaves_folder_and_settings_as_they_were(
    model: LocalModel, asked: dict[str, tuple[Path, Answers]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = asked["option"]
    monkeypatch.chdir(tmp_path)
    before = datasets.config.HF_DATASETS_CACHE
    files = sorted(folder.rglob("*"))
    with pytest.raises(Exception, match="not_there"):
        ask(model, folder, ["not_there"])
    assert before == datasets.config.HF_DATASETS_CACHE
    assert Path.cwd() == tmp_path
    assert sorted(folder.rglob("*")) == files
