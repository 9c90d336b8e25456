"""Ask any model of lm-eval the task files of a folder, and keep every item's record."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import MissingDependencyError
from polyclinic.evaluate.backends.quiet import quiet_lm_eval
from polyclinic.evaluate.tasks import FOLDER


class Answers(NamedTuple):
    """What lm-eval returned: its results as it writes them, and its samples by task, in the order of the files."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def ask(model: Any, folder: Path, tasks: Sequence[str]) -> Answers:
    """Ask a model of lm-eval the tasks in `folder`/tasks.

    Nothing is printed, and nothing is cached in the user's home. Raises MissingDependencyError where lm-eval
    is not installed.
    """
    check_installed()
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import handle_non_serializable

    # Task files name their data relative to `folder`.
    with contextlib.chdir(folder), _private_cache(), quiet_lm_eval():
        manager = TaskManager(include_path=FOLDER, include_defaults=False)
        results = evaluate(lm=model, task_dict=manager.load(list(tasks)), bootstrap_iters=0)
    samples = results.pop("samples")
    return Answers(json.loads(json.dumps(results, default=handle_non_serializable)), {t: samples[t] for t in tasks})


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
