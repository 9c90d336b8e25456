"""Ask any model of lm-eval the task files of a folder, and keep every item's record."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import MissingDependencyError
from polyclinic.evaluate.backends.quiet import quiet_lm_eval
from polyclinic.evaluate.tasks import FOLDER


class Answer(NamedTuple):
    """One item as answered: positions of the right and the picked option, scores of all."""

    task: str
    id: str
    gold: int
    picked: int  # by log-likelihood per byte of the option
    log_likelihoods: list[float]


def ask(model: Any, folder: Path, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Ask a model of lm-eval the tasks in `folder`/tasks; task -> lm-eval's samples, in the order of the files.

    Nothing is printed, and nothing is cached in the user's home. Raises MissingDependencyError where lm-eval
    is not installed.
    """
    check_installed()
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    # Task files name their data relative to `folder`.
    with contextlib.chdir(folder), _private_cache(), quiet_lm_eval():
        manager = TaskManager(include_path=FOLDER, include_defaults=False)
        results = evaluate(lm=model, task_dict=manager.load(list(tasks)), bootstrap_iters=0)
    return {task: results["samples"][task] for task in tasks}


def check_installed() -> None:
    """Raise MissingDependencyError where a package of the extra `evaluate` is not installed."""
    try:
        import datasets  # noqa: F401
        import lm_eval  # noqa: F401
    except ImportError as err:
        raise MissingDependencyError(
            "evaluate", f"{err.name} is not installed", "pip install 'polyclinic[evaluate]'"
        ) from err


@contextlib.contextmanager
def _private_cache() -> Iterator[None]:
    """Let `datasets` keep what it reads in a folder that goes, without a progress bar."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    before = datasets.config.HF_DATASETS_CACHE
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before
            if not bars:
                datasets.enable_progress_bars()


def local_answers(checkpoint: Path, folder: Path, tasks: Sequence[str], batch_size: int) -> list[Answer]:
    """Score all tasks in `folder` on one checkpoint, in stock routing."""
    check_installed()
    from polyclinic.evaluate.backends.local import LocalModel

    samples = ask(LocalModel(checkpoint, batch_size=batch_size), folder, tasks)
    return [_answer(task, sample) for task in tasks for sample in samples[task]]


def _answer(task: str, sample: Mapping[str, Any]) -> Answer:
    """Read one of lm-eval's samples."""
    scores = [float(response[0][0]) for response in sample["resps"]]
    sizes = [len(option.encode()) for option in sample["doc"]["choices"]]
    per_byte = [score / size for score, size in zip(scores, sizes, strict=True)]
    picked = max(range(len(scores)), key=lambda i: per_byte[i])
    return Answer(task, sample["doc"]["id"], int(sample["doc"]["gold"]), picked, scores)
