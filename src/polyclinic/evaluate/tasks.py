"""Exam questions as ordinary lm-eval tasks: one YAML and one JSON-lines file per exam and language.

The files name no code and no folder of this machine, so `lm_eval --include_path tasks` runs them
unchanged from the folder that holds `tasks`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.protocol import GENERATED, Protocol

FOLDER = "tasks"
VERSION = 2
END_OF_TEXT = "<|endoftext|>"


def task_name(exam: str, code: str) -> str:
    """Return the task of an exam in a language."""
    return re.sub(r"\W+", "_", f"polyclinic_{exam}_{code}")


def write_tasks(documents: Mapping[str, Sequence[dict[str, Any]]], protocol: Protocol, folder: Path) -> list[str]:
    """Write the files of each task (name -> documents of `prompting.document`); returns the names in order.

    A task without documents is not written: lm-eval refuses an empty split.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    names = [name for name, items in documents.items() if items]
    for name in names:
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in documents[name])
        (folder / FOLDER / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        text = yaml.safe_dump(config(name, documents[name][0]["language"], protocol), sort_keys=False)
        (folder / FOLDER / f"{name}.yaml").write_text(text, "utf-8")
    return names


def config(name: str, code: str, protocol: Protocol) -> dict[str, Any]:
    """Return the lm-eval task: options or letters compared, or an answer written."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{FOLDER}/{name}.jsonl"}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{gold}}",
        **(_written(code, protocol) if protocol.scoring in GENERATED else _compared(protocol)),
        "num_fewshot": 0,
        "metadata": {"version": VERSION},
    }


def _compared(protocol: Protocol) -> dict[str, Any]:
    """Return the keys of multiple choice: accuracy, of full options also per byte."""
    names = ["acc", "acc_bytes"] if protocol.scoring == "option" else ["acc"]
    metrics = [_metric(name) for name in names]
    return {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "metric_list": metrics}


def _written(code: str, protocol: Protocol) -> dict[str, Any]:
    """Return the keys of a written answer; the parser decides what counts, `exact_match` is a lower bound."""
    settings = {"until": stops(code, protocol), "max_gen_toks": protocol.new_tokens, "do_sample": False}
    metric = {**_metric("exact_match"), "ignore_case": True, "ignore_punctuation": True}
    return {"output_type": "generate_until", "generation_kwargs": settings, "metric_list": [metric]}


def stops(code: str, protocol: Protocol) -> list[str]:
    """Return what ends an answer: a new question; without reasoning an empty line, in the paper nothing."""
    if protocol.majority_letter:
        return [END_OF_TEXT]
    again = [f"\n{literals(code).question}:", "\nUser:"]
    return again if protocol.scoring == "chain" else ["\n\n", *again]


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}
