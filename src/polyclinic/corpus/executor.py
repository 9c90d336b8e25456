"""Run tasks, each a folder of files with a manifest; one that is finished and undamaged is not done again.

A task writes in `.work-NAME`, and the folder gets its name by a rename once its manifest is inside.
Its key is a digest of all that decides its output, so what a run of other settings left is redone,
and nothing else. Results come back in the order of the tasks, whoever did them when.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.runs import MANIFEST, damaged, digest, publish, read_json, seal

Report = Callable[[int, int], None]


class Task(NamedTuple):
    """One folder to make: `work` writes its files and returns facts for its manifest.

    `inputs` is a JSON value of all that decides what `work` writes; `work` must be picklable.
    """

    name: str
    inputs: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]

    def key(self) -> str:
        """Return the digest of all that decides the output."""
        return digest(self.inputs)


def run(tasks: Sequence[Task], place: Path, engine: str, workers: int, report: Report) -> list[dict[str, Any]]:
    """Do every task that is not finished, in folders below `place`; returns their manifests in order.

    `report` hears how many are done of how many. Folders of no task are removed.
    """
    place.mkdir(parents=True, exist_ok=True)
    names = {task.name for task in tasks}
    for other in place.iterdir():
        if other.name not in names:
            shutil.rmtree(other)
    out = []
    with _pool(workers) as pool:
        futures = [pool.submit(do, task, place) if pool else None for task in tasks]
        for done, (task, future) in enumerate(zip(tasks, futures, strict=True), start=1):
            out.append(future.result() if future else do(task, place))
            report(done, len(tasks))
    return out


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    if workers == 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


def do(task: Task, place: Path) -> dict[str, Any]:
    """Do one task unless it is finished; returns its manifest."""
    final, key = place / task.name, task.key()
    if damaged(final) is None:
        manifest: dict[str, Any] = read_json(final / MANIFEST)
        if manifest.get("key") == key:
            return manifest
    work = place / f".work-{task.name}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        manifest = seal(work, {"step": task.name, "key": key, "facts": dict(task.work(work))})
        publish(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest
