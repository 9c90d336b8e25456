"""Tasks as Ray remote tasks: the same function on the same tasks, on one machine or a cluster.

The folders that tasks read and write must be at the same place on every machine.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from polyclinic.corpus.engine.executor import Attempt, Task, attempt
from polyclinic.errors import MissingDependencyError, PolyclinicError

ADDRESS = "RAY_ADDRESS"
STORE_BYTES = 80_000_000  # only manifests pass through


class Ray:
    """Does so many tasks at once on the cluster that RAY_ADDRESS names, or on one started here for the run."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ray: Any = None
        self._ours = False

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as err:
            what = "the package ray is not installed"
            raise MissingDependencyError("corpus.engine", what, "pip install 'polyclinic[ray]'") from err
        self._ray = ray
        if not ray.is_initialized():
            self._start()
        return self

    def _start(self) -> None:
        """Join the cluster that is named, or start one; the way this process ends stays its own."""
        before = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if os.environ.get(ADDRESS, "local") == "local":
                here = {"num_cpus": self._workers, "include_dashboard": False, "object_store_memory": STORE_BYTES}
                self._ray.init(address="local", **here, **quiet)
            else:
                self._ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as err:
            where = os.environ.get(ADDRESS, "local")
            raise PolyclinicError(f"ray at {where}", "cannot be reached or started", f"check {ADDRESS}") from err
        self._ours = True
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def stream(self, tasks: Sequence[Task], place: Path) -> Iterator[tuple[int, Attempt]]:
        """Attempt every task; Ray begins one again whose machine was lost, and raises PolyclinicError in the end."""
        remote, waiting = self._ray.remote(num_cpus=1)(_attempt), list(enumerate(tasks))[::-1]
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < self._workers:
                number, task = waiting.pop()
                running[remote.remote(task, place, Path.cwd())] = number
            done, _ = self._ray.wait(list(running))
            for reference in done:
                try:
                    yield running.pop(reference), self._ray.get(reference)
                except self._ray.exceptions.RayError as err:
                    what = f"Ray lost a task ({type(err).__name__})"
                    raise PolyclinicError(place, what, "run the same command to go on") from err


def _attempt(task: Task, place: Path, folder: Path) -> Attempt:
    """Attempt a task where the paths of a recipe mean what they mean to who began the run."""
    os.chdir(folder)
    return attempt(task, place)
