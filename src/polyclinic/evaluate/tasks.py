"""Exam questions as ordinary lm-eval tasks: one YAML and one JSON-lines file per exam and language.

The files name no code and no folder of this machine, so `lm_eval --include_path tasks` runs them
unchanged from the folder that holds `tasks`. Options are scored by log-likelihood of the full
option after the question, in the question's own language.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from polyclinic.prompts import exam_prompt
from polyclinic.records import Question

FOLDER = "tasks"
VERSION = 1


def task_name(question: Question) -> str:
    """Return the task a question belongs to."""
    return re.sub(r"\W+", "_", f"polyclinic_{question.source}_{question.language}")


def single_answer(question: Question) -> bool:
    """Say whether exactly one option is right; others need a score of their own."""
    return len(question.answers) == 1


def write_tasks(questions: Iterable[Question], folder: Path) -> list[str]:
    """Write task files for all single-answer questions; returns the task names in order."""
    (folder / FOLDER).mkdir(exist_ok=True)
    by_task: dict[str, list[Question]] = {}
    for question in filter(single_answer, questions):
        by_task.setdefault(task_name(question), []).append(question)
    for name, items in by_task.items():
        lines = (json.dumps(item(q), ensure_ascii=False) + "\n" for q in items)
        (folder / FOLDER / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        text = yaml.safe_dump(config(name), sort_keys=False)
        (folder / FOLDER / f"{name}.yaml").write_text(text, "utf-8")
    return list(by_task)


def item(question: Question) -> dict[str, Any]:
    """Return what lm-eval reads of one question."""
    return {
        "id": question.id,
        "prompt": exam_prompt(question),
        "options": list(question.options),
        "answer": question.answers[0],
    }


def config(name: str) -> dict[str, Any]:
    """Return the lm-eval task: multiple choice, accuracy plain and per byte of the option."""
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_bytes")]
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{FOLDER}/{name}.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 0,
        "metric_list": metrics,
        "metadata": {"version": VERSION},
    }
