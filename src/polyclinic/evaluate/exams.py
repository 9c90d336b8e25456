"""Ask a model the exam questions through lm-eval, and keep every item's record."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import MissingDependencyError


class Answer(NamedTuple):
    """One item as answered: positions of the right and the picked option, scores of all."""

    task: str
    id: str
    gold: int
    picked: int  # by log-likelihood per byte of the option
    log_likelihoods: list[float]


def ask(checkpoint: Path, folder: Path, tasks: Sequence[str], batch_size: int) -> list[Answer]:
    """Score all tasks in `folder` on one checkpoint; stock routing, no family ids.

    Raises MissingDependencyError where lm-eval is not installed.
    """
    try:
        import datasets
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as err:
        raise MissingDependencyError(
            "evaluate", f"{err.name} is not installed", "pip install 'polyclinic[evaluate]'"
        ) from err
    from transformers import AutoTokenizer

    from polyclinic.moe.checkpoint import load_model

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # The name of a special token in a question is text.
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, split_special_tokens=True)
    model = HFLM(pretrained=load_model(checkpoint).eval(), tokenizer=tokenizer, batch_size=batch_size, device="cpu")
    # Task files name their data relative to `folder`; the cache of datasets stays out of the user's home.
    with tempfile.TemporaryDirectory() as cache, contextlib.chdir(folder):
        before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, Path(cache)
        try:
            manager = TaskManager(include_path="tasks", include_defaults=False)
            with contextlib.redirect_stderr(io.StringIO()):
                results = evaluate(lm=model, task_dict=manager.load(list(tasks)), bootstrap_iters=0)
        finally:
            datasets.config.HF_DATASETS_CACHE = before
    return [_answer(task, sample) for task in tasks for sample in results["samples"][task]]


def _answer(task: str, sample: dict[str, Any]) -> Answer:
    """Read one of lm-eval's samples."""
    scores = [float(response[0][0]) for response in sample["resps"]]
    sizes = [len(option.encode()) for option in sample["doc"]["choices"]]
    per_byte = [score / size for score, size in zip(scores, sizes, strict=True)]
    picked = max(range(len(scores)), key=lambda i: per_byte[i])
    return Answer(task, sample["doc"]["id"], int(sample["doc"]["gold"]), picked, scores)
