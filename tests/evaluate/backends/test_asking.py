"""Documents that hold their whole prompt, asked of a local model through the store: lm-eval's own figures, unheard."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from asking import stock
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from polyclinic.evaluate.backends.kept import Kept, opened
from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.evaluate.exams import ask
from polyclinic.evaluate.prompting import document
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.records import Question

TASK = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "{{prompt}}",
    "num_fewshot": 0,
    "target_delimiter": " ",
}
CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}"}
WRITE = {
    "output_type": "generate_until",
    "doc_to_target": "{{gold}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.fixture(scope="module")
def folder(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of letters, of options and of written answers, languages mixed."""
    folder = tmp_path_factory.mktemp("asking")
    (folder / "tasks").mkdir()
    single = [q for q in questions if len(q.answers) == 1][:16]
    for name, more in (("letter", CHOICE), ("option", CHOICE), ("generate", WRITE)):
        docs = [document(question, [], PROTOCOLS[name]) for question in single]
        lines = "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs)
        (folder / "tasks" / f"{name}.jsonl").write_text(lines)
        data = {"data_files": {"test": f"tasks/{name}.jsonl"}}
        (folder / "tasks" / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, "dataset_kwargs": data, **TASK, **more})
        )
    return folder


def scores(sample: dict[str, Any]) -> list[float]:
    return [response[0][0] for response in sample["resps"]]


@pytest.mark.parametrize("name", ["base", "mixture"])
def test_samples_and_accuracy_are_lm_evals_own_through_the_store_and_without(
    models: dict[str, Path],
    folder: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tasks, model = ["letter", "option", "generate"], LocalModel(models[name])
    capfd.readouterr()
    with opened(tmp_path) as store:
        first, again = (ask(Kept(model, store, model.facts()), folder, tasks).samples for _ in range(2))
    assert capfd.readouterr() == ("", "")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    manager = TaskManager(include_path="tasks", include_defaults=False)
    theirs = simple_evaluate(stock(models[name]), tasks=tasks, task_manager=manager, bootstrap_iters=0)
    for task in ("letter", "option"):
        for ours, other in zip(first[task], theirs["samples"][task], strict=True):
            assert ours["doc"] == other["doc"]
            assert scores(ours) == pytest.approx(scores(other), abs=1e-4)
        assert np.mean([sample["acc"] for sample in first[task]]) == theirs["results"][task]["acc,none"]
        assert list(map(scores, first[task])) == list(map(scores, again[task]))
    written = [sample["resps"] for sample in first["generate"]]
    assert written == [sample["resps"] for sample in theirs["samples"]["generate"]]


def test_languages_of_documents_reach_the_routers(hybrid: LocalModel, models: dict[str, Path], folder: Path) -> None:
    routed, plain = (
        ask(model, folder, ["option"]).samples["option"] for model in (hybrid, LocalModel(models["mixture"]))
    )
    assert {sample["doc"]["language"] for sample in routed} == {"ar", "en", "th", "zh"}
    differ = [abs(np.subtract(scores(a), scores(b))).max() for a, b in zip(routed, plain, strict=True)]
    assert min(differ) > 0
