"""Run tasks, each a folder of files with a manifest; one that is finished and undamaged is not done again.

A task writes in `.work-NAME`, and the folder gets its name by a rename once its manifest is inside.
Its key is a digest of all that decides its output, so what a run of other settings left is redone,
and nothing else. Results come back in the order of the tasks, whoever did them when.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from polyclinic.errors import BusyError, DiskError, PolyclinicError
from polyclinic.runs import MANIFEST, damaged, digest, publish, read_json, seal

FULL = (errno.ENOSPC, errno.EDQUOT)
PATIENCE = 10.0  # seconds that workers of a killed run get to stop


class Task(NamedTuple):
    """One folder to make: `work` writes its files and returns facts for its manifest.

    `inputs` is a JSON value of all that decides what `work` writes; `work` must be picklable. `size`
    is how much there is to do, in bytes, for the time left.
    """

    name: str
    inputs: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]
    size: int = 0

    def key(self) -> str:
        """Return the digest of all that decides the output."""
        return digest(self.inputs)


class Attempt(NamedTuple):
    """What became of a task: its manifest, whether it was done now, or why it failed."""

    manifest: Mapping[str, Any]
    did: bool
    error: PolyclinicError | None = None


class Engine(Protocol):
    """What does tasks somewhere: gives their numbers and what became of them, as they end."""

    def stream(self, tasks: Sequence[Task], place: Path) -> Iterator[tuple[int, Attempt]]:
        """Attempt every task in folders below `place`."""


Report = Callable[[int, Attempt], None]


def run(tasks: Sequence[Task], place: Path, engine: Engine, report: Report) -> list[dict[str, Any]]:
    """Do every task that is not finished, in folders below `place`; returns their manifests in order.

    `report` hears the number of each task that ended, and how. Folders of no task are removed. A failed task
    stops no other but where the disk is full; then the first error is raised, with how many more there are.
    """
    sweep(place, tasks)
    return take(tasks, place, engine, report)


def take(tasks: Sequence[Task], place: Path, engine: Engine, report: Report) -> list[dict[str, Any]]:
    """Do tasks as `run` does and leave all other folders alone."""
    found: dict[int, Attempt] = {}
    for number, attempted in engine.stream(tasks, place):
        if isinstance(attempted.error, DiskError):
            raise attempted.error
        found[number] = attempted
        report(number, attempted)
    errors = [error for number in sorted(found) if (error := found[number].error)]
    if errors:
        first, others = errors[0], len(errors) - 1
        more = f" (and {others} more of {len(tasks)} failed)" if others else ""
        raise type(first)(first.where, first.what + more, first.try_)
    return [dict(found[number].manifest) for number in range(len(tasks))]


def sweep(place: Path, tasks: Sequence[Task]) -> None:
    """Remove from `place` what is of no task: other shards, and work that a killed run left.

    A shard that only has another name now, since files were added or removed before it, is renamed.
    """
    place.mkdir(parents=True, exist_ok=True)
    with _held(place, fcntl.LOCK_EX):
        _rename(place, tasks)
        names = {task.name for task in tasks}
        for other in place.iterdir():
            if other.name not in names:
                shutil.rmtree(other)


def _rename(place: Path, tasks: Sequence[Task]) -> None:
    """Give folders the names of the tasks that have their keys."""
    there = {path.parent.name: read_json(path).get("key") for path in place.glob(f"[!.]*/{MANIFEST}")}
    wanted = {task.name: task.key() for task in tasks}
    free = {key: name for name, key in there.items() if wanted.get(name) != key}
    moves = {free[key]: name for name, key in wanted.items() if there.get(name) != key and key in free}
    for old in moves:  # all aside first: a name may be that of another that moves
        (place / old).rename(place / f".moved-{old}")
    for old, new in moves.items():
        shutil.rmtree(place / new, ignore_errors=True)
        (place / f".moved-{old}").rename(place / new)


def attempt(task: Task, place: Path) -> Attempt:
    """Do one task unless it is finished; an error comes back as a value, in one line and without any text."""
    try:
        with space_named(place):
            return do(task, place)
    except PolyclinicError as err:
        return Attempt({}, False, err.with_traceback(None))
    except OSError as err:
        what = (err.strerror or type(err).__name__).lower()
        error: PolyclinicError = DiskError(err.filename or place / task.name, what, "check permissions and run again")
        return Attempt({}, False, error)
    except Exception as err:
        if os.environ.get("POLYCLINIC_DEBUG"):
            raise
        error = PolyclinicError(task.name, type(err).__name__, "a fault of ours: POLYCLINIC_DEBUG=1 shows where")
        return Attempt({}, False, error)


@contextmanager
def space_named(place: Path) -> Iterator[None]:
    """Raise DiskError with the bytes that are free where the disk of `place` is full."""
    try:
        yield
    except OSError as err:
        if err.errno not in FULL:
            raise
        what = f"no space left, {shutil.disk_usage(place).free:,} bytes are free"
        raise DiskError(place, what, "make room and run again; what is finished is kept") from err


def do(task: Task, place: Path) -> Attempt:
    """Do one task unless it is finished."""
    with _held(place, fcntl.LOCK_SH):
        final, key = place / task.name, task.key()
        if (found := finished(final, key)) is not None:
            return Attempt(found, False)
        work = place / f".work-{task.name}-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            manifest = seal(work, {"step": task.name, "key": key, "facts": dict(task.work(work))})
            publish(work, final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Attempt(manifest, True)


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the manifest of a folder that was made from this key and is undamaged, or None."""
    manifest = _sealed(folder, key)
    return manifest if manifest is not None and damaged(folder) is None else None


def _sealed(folder: Path, key: str) -> dict[str, Any] | None:
    path = folder / MANIFEST
    manifest: dict[str, Any] = read_json(path) if path.is_file() else {}
    return manifest if manifest.get("key") == key else None


def gathered(tasks: Sequence[Task], place: Path, again: str) -> list[dict[str, Any]]:
    """Return the manifests of tasks that others have done, whose files are not read.

    Raises PolyclinicError where one is missing.
    """
    found = [_sealed(place / task.name, task.key()) for task in tasks]
    missing = [task.name for task, manifest in zip(tasks, found, strict=True) if manifest is None]
    if missing:
        raise PolyclinicError(place, f"{len(missing)} of {len(tasks)} not done, first {missing[0]}", again)
    return [manifest for manifest in found if manifest is not None]


@contextmanager
def _held(place: Path, how: int) -> Iterator[None]:
    """Hold the lock beside a place: all who work there share it, who sweeps it waits until they are gone.

    Raises BusyError where they do not go. A file system without locks is used without.
    """
    with place.with_name(f"{place.name}.lock").open("a") as lock:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, how | fcntl.LOCK_NB)
            except BlockingIOError as err:
                if time.monotonic() > until:
                    raise BusyError(place, "another run still works on it", "wait for it or stop it") from err
                time.sleep(0.02)
            except OSError:
                break
            else:
                break
        yield
