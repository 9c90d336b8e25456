"""Where tasks are done: in this process, in processes beside it, or by Ray.

Workers never outlive the run: they stop when it ends, when it is stopped and when it is killed.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Self

from polyclinic.corpus.engine.executor import Attempt, Engine, Task, attempt
from polyclinic.errors import PolyclinicError, RecipeError

KILLED = "a worker was killed, perhaps for want of memory"
LOOK_SECONDS = 0.2
AGAIN = "run the same command to go on; fewer corpus.workers need less memory"


class Inline:
    """Does tasks one after the other in this process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stream(self, tasks: Sequence[Task], place: Path) -> Iterator[tuple[int, Attempt]]:
        """Attempt every task."""
        for number, task in enumerate(tasks):
            yield number, attempt(task, place)


class Local:
    """Does tasks in processes beside this one, which are started with the first task."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._processes: set[BaseProcess] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:  # who stops a run does not wait for the shards that are being done
                for process in self._processes:
                    process.kill()
            self._pool.shutdown(cancel_futures=True)

    def stream(self, tasks: Sequence[Task], place: Path) -> Iterator[tuple[int, Attempt]]:
        """Attempt every task; raises PolyclinicError as soon as a worker is killed.

        Whether all live is looked at here: the pool does not watch a worker that it has just started
        until something else happens, which may be minutes later.
        """
        if self._pool is None:
            size = max(1, min(self._workers, len(tasks)))
            self._pool = ProcessPoolExecutor(size, mp_context=get_context("spawn"), initializer=_follow)
        waiting, running = deque(enumerate(tasks)), dict[Future[Attempt], int]()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._workers:  # one each in reserve
                    number, task = waiting.popleft()
                    running[self._submitted(self._pool, task, place)] = number
                done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                if running and not all(process.is_alive() for process in self._processes):
                    raise PolyclinicError(place, KILLED, AGAIN)
        except BrokenProcessPool as err:
            raise PolyclinicError(place, KILLED, AGAIN) from err

    def _submitted(self, pool: ProcessPoolExecutor, task: Task, place: Path) -> "Future[Attempt]":
        """Submit a task, and note the process that may be started for it."""
        others = set(active_children()) - self._processes
        future = pool.submit(attempt, task, place)
        self._processes |= set(active_children()) - others
        return future


def _follow() -> None:
    """Leave the stopping to the parent, and stop when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def engine(name: Literal["local", "ray", "slurm"], workers: int) -> AbstractContextManager[Engine]:
    """Return what runs the shards of a recipe, to be entered; raises RecipeError for what cannot run here."""
    if name == "ray":
        from polyclinic.corpus.engine.ray_engine import Ray

        return Ray(workers)
    if name == "slurm":
        what = "the shards of slurm are run by its own jobs"
        try_ = "use polyclinic corpus build and its submit.sh, then --set corpus.engine=local"
        raise RecipeError("corpus.engine", what, try_)
    return Inline() if workers == 1 else Local(workers)
