"""The run folder: finished steps with manifests, published in one rename, resumed without redoing.

A step works in `.work-NAME` and appears as `NAME` only when its `manifest.json`, written last, is
inside: temp, fsync, rename, fsync of the folder. The manifest holds the step's key (a digest of all
that decides its output) and the SHA-256 of every file. A step whose key and files still match is
not done again; a changed key or a damaged file means that it is.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polyclinic.errors import BusyError, CheckpointError, DataError, DiskError

MANIFEST = "manifest.json"
SELF = "sha256"  # of the manifest's other entries
LOCK = "run.lock"
SCRATCH = "scratch"  # what a step keeps only to survive a kill: never sealed, gone once published
CHECKPOINTS = f"{SCRATCH}/checkpoints"  # of a training, below the folder of its step


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a checkpoint's weights and JSON files, which decide what is made of it."""
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".json") and p.name != MANIFEST)
    return {p.name: sha256_file(p) for p in files}


def digest(value: Any) -> str:
    """Return a SHA-256 of any JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fsync_folder(path: Path) -> None:
    """Make renames and new names inside a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part.

    Raises DiskError for what is there and no file: a rename would put a file in the place of a device.
    """
    if path.exists() and not path.is_file():
        raise DiskError(path, "is there and is not a regular file", "name another place")
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically; key order is kept as given."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file that this project wrote; raises DataError if it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as err:
        raise DataError(path, f"cannot be read ({type(err).__name__})", "delete it and run again") from err


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return [p for p in found if p.relative_to(folder).parts[0] != SCRATCH]


def seal(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Fsync a folder's files and write its manifest as the last file; returns the manifest."""
    outputs = {}
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        outputs[path.relative_to(folder).as_posix()] = sha256_file(path)
    for sub in [p for p in folder.rglob("*") if p.is_dir()]:
        fsync_folder(sub)
    manifest = {**facts, "outputs": outputs}
    manifest[SELF] = digest(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def publish(work: Path, final: Path) -> None:
    """Rename a sealed folder to its final name, replacing an older one."""
    stale = final.with_name(f".old-{final.name}")  # may be there from a killed publish
    shutil.rmtree(stale, ignore_errors=True)
    if final.exists():
        final.rename(stale)
    work.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(stale, ignore_errors=True)


def damaged(folder: Path) -> str | None:
    """Name the first file of a sealed folder that does not match its manifest, or None."""
    path = folder / MANIFEST
    if not path.is_file():
        return MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if manifest.pop(SELF) != digest(manifest):
            return MANIFEST
        outputs = dict(manifest["outputs"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return MANIFEST
    for name, expected in outputs.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != expected:
            return str(name)
    return None


def finished_base(run: str) -> Path:
    """Return the folder of the base that a finished run trained or used; raises DataError if there is none."""
    folder = Path(run) / "base"
    if damaged(folder) is not None:
        raise DataError(run, "holds no finished base", "name a run folder whose base step is done")
    named = folder / "parent.json"
    parent = Path(read_json(named)["path"]) if named.is_file() else folder
    if not parent.is_dir():
        raise DataError(run, f"its base {parent} is no longer there", "name the checkpoint itself")
    return parent


class RunFolder:
    """A folder of finished steps. Use `RunFolder.open`, which holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(cls, path: Path, lock_name: str = LOCK) -> Iterator["RunFolder"]:
        """Create the folder, take its lock for this process, and let go at the end.

        Steps that share nothing but the folder they are put in take a lock each, by `lock_name`.
        Raises BusyError naming pid and host of the holder, DiskError if it is not a folder.
        """
        if path.exists() and not path.is_dir():
            raise DiskError(path, "is a file, a run needs a folder", "choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        with (path / lock_name).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise BusyError(path, f"in use by {holder}", "wait for it or choose another --out") from err
            lock.truncate(0)
            lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            yield cls(path)

    def finished(self, name: str, key: str) -> bool:
        """Say whether a step is there, made from the same key, with undamaged files."""
        folder = self.path / name
        if not folder.is_dir() or damaged(folder) is not None:
            return False
        return bool(read_json(folder / MANIFEST).get("key") == key)

    def step(self, name: str, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> bool:
        """Do one step unless it is finished; returns True if work was done.

        `inputs` is everything that decides the output. `work` gets the step's folder, which may hold
        what a killed attempt with the same key left, and returns facts for the manifest.
        """
        key = digest(inputs)
        todo = not self.finished(name, key)
        if todo:
            self._refuse_foreign(self.path / name)
            folder = self._workplace(name, key)
            facts = work(folder)
            seal(folder, {"step": name, "key": key, "facts": dict(facts)})
            publish(folder, self.path / name)
        shutil.rmtree(self.path / name / SCRATCH, ignore_errors=True)
        return todo

    def _refuse_foreign(self, folder: Path) -> None:
        """Raise DiskError for a file or folder that no run published, rather than replace it."""
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
            raise DiskError(folder, "is in the way and not of a run", "move it or choose another folder")

    def _workplace(self, name: str, key: str) -> Path:
        """Return the step's work folder, emptied unless it was begun with the same key.

        Raises CheckpointError rather than throw a training away.
        """
        folder = self.path / f".work-{name}"
        mark = folder / SCRATCH / "key"
        if not (mark.is_file() and mark.read_text() == key):
            if any((folder / CHECKPOINTS).glob("step-*")):
                what = "holds checkpoints of a training with another recipe, base, text or version"
                raise CheckpointError(folder, what, "run what began it to go on, or remove the folder to begin anew")
            shutil.rmtree(folder, ignore_errors=True)
            mark.parent.mkdir(parents=True)
            write_bytes(mark, key.encode())
        return folder

    def manifest(self, name: str) -> dict[str, Any]:
        """Return the manifest of a finished step."""
        return dict(read_json(self.path / name / MANIFEST))
