"""The run folder: what is published is whole, durable and never somebody else's."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic import runs
from polyclinic.errors import BusyError, CheckpointError, DataError, DiskError
from polyclinic.runs import CHECKPOINTS, RunFolder, damaged, digest, read_json, sha256_file, write_bytes, write_json

CONTENT = {"a.bin": b"weights" * 99, "sub/b.txt": b"words", "sub/deep/empty": b""}


def fill(folder: Path) -> dict[str, Any]:
    """Work as a stage works: write files, some of them in folders."""
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {"files": len(CONTENT)}


def half(folder: Path) -> dict[str, Any]:
    """Work that leaves one file more than `fill`."""
    (folder / "half").write_bytes(b"half")
    return fill(folder)


def idle(folder: Path) -> dict[str, Any]:
    raise AssertionError("a finished step was done again")


def content(folder: Path) -> dict[str, bytes]:
    """Return what a step made: its files without manifest and scratch."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {n: data for n, data in found.items() if n != "manifest.json" and not n.startswith(runs.SCRATCH)}


def do(path: Path, key: Any = 1, work: Callable[[Path], Any] = fill) -> bool:
    with RunFolder.open(path) as run:
        return run.step("step", {"key": key}, work)


# What a step leaves


def test_a_step_publishes_its_files_with_their_digests(tmp_path: Path) -> None:
    assert do(tmp_path)
    assert content(tmp_path / "step") == CONTENT
    manifest = json.loads((tmp_path / "step" / "manifest.json").read_text())
    assert manifest["outputs"] == {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    assert (manifest["step"], manifest["facts"]) == ("step", {"files": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.lock", "step"]
    assert not (tmp_path / "step" / runs.SCRATCH).exists()


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    assert do(tmp_path)
    before = (tmp_path / "step" / "manifest.json").stat()
    assert not do(tmp_path, work=idle)
    assert (tmp_path / "step" / "manifest.json").stat() == before


def test_a_changed_key_does_the_step_again_and_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    do(tmp_path, 1, half)
    assert do(tmp_path, 2)
    assert content(tmp_path / "step") == CONTENT
    assert not do(tmp_path, 2, idle)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.lock", "step"]


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("how", ["flipped", "longer", "missing"])
def test_a_damaged_output_does_the_step_again(tmp_path: Path, name: str, how: str) -> None:
    do(tmp_path)
    path = tmp_path / "step" / name
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) // 2] ^= 1
    path.unlink()
    if how != "missing":
        path.write_bytes(data if how == "flipped" else CONTENT[name] + b"\0")
    assert damaged(tmp_path / "step") == name
    assert do(tmp_path)
    assert content(tmp_path / "step") == CONTENT


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"outputs": 3}', '{"outputs": [1]}', "\x00"])
def test_a_damaged_manifest_does_the_step_again(tmp_path: Path, text: str) -> None:
    do(tmp_path)
    (tmp_path / "step" / "manifest.json").write_text(text)
    assert damaged(tmp_path / "step") == "manifest.json"
    assert do(tmp_path)
    assert damaged(tmp_path / "step") is None


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_no_run_published_is_never_replaced(tmp_path: Path, kind: str) -> None:
    theirs = tmp_path / "step" / "thesis.tex" if kind == "folder" else tmp_path / "step"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("years of work")
    with pytest.raises(DiskError, match="in the way"):
        do(tmp_path, work=idle)
    assert theirs.read_text() == "years of work"


def test_an_empty_folder_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    assert do(tmp_path)
    assert content(tmp_path / "step") == CONTENT


# Half-written work


@pytest.mark.parametrize(("key", "kept"), [(1, True), (2, False)])
def test_the_work_of_a_killed_process_is_kept_for_its_key_and_wiped_for_another(
    tmp_path: Path, key: int, kept: bool
) -> None:
    script = f"""
import os, signal
from pathlib import Path
from polyclinic.runs import RunFolder
def work(folder):
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
with RunFolder.open(Path({str(tmp_path)!r})) as run:
    run.step("step", {{"key": 1}}, work)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "step").exists()
    assert do(tmp_path, key)
    assert ("half" in content(tmp_path / "step")) is kept


def test_work_that_fails_publishes_nothing_and_can_be_taken_up(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        fill(folder)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        do(tmp_path, work=fail)
    assert not (tmp_path / "step").exists()
    assert do(tmp_path, work=lambda f: {"found": sorted(content(f))})
    assert content(tmp_path / "step") == CONTENT


def test_scratch_outlives_a_kill_at_any_call_until_the_step_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints lie there: hours of training must not hang on the seconds that sealing takes."""

    def train(folder: Path) -> dict[str, Any]:
        (folder / runs.SCRATCH / "checkpoint").touch()
        return fill(folder)

    for crash_at in range(99):
        run = tmp_path / str(crash_at)
        with watched(monkeypatch, crash_at) as calls, suppress(Crash):
            do(run, work=train)
        if (run / "step").exists():
            break
        begun = any(call[0] == "fsync" and Path(call[1]).parent.name == ".work-step" for call in calls)
        do(run, work=lambda folder: {"kept": (folder / runs.SCRATCH / "checkpoint").exists()})
        assert RunFolder(run).manifest("step")["facts"] == {"kept": True} or not begun
    assert crash_at > len(CONTENT)
    do(run, work=idle)
    assert not (run / "step" / runs.SCRATCH).exists()


# Crash safety: the order of calls, and a crash before every one of them


class Crash(BaseException):
    """What no `except Exception` may catch, like a kill."""


@contextmanager
def watched(patch: pytest.MonkeyPatch, crash_at: int | None = None) -> Iterator[list[tuple[str, ...]]]:
    """Record fsync and rename with the paths they act on, in order; die before call `crash_at`."""
    seen: list[tuple[str, ...]] = []
    sync, rename, replace, remove = os.fsync, os.rename, os.replace, os.unlink

    def note(*call: str) -> None:
        if len(seen) == crash_at:
            raise Crash
        seen.append(call)

    def act(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*paths: Any, **rest: Any) -> None:
            note(name, *map(os.fspath, paths))
            real(*paths, **rest)

        return call

    def act_on_handle(handle: int) -> None:
        note("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    with patch.context() as patched:
        patched.setattr(os, "fsync", act_on_handle)
        patched.setattr(os, "rename", act("rename", rename))
        patched.setattr(os, "replace", act("rename", replace))
        patched.setattr(os, "unlink", act("unlink", remove))
        yield seen


def test_a_file_is_written_as_temp_fsync_rename_fsync_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as calls:
        write_bytes(tmp_path / "x.json", b"1")
    temporary = calls[0][1]
    assert Path(temporary).parent == tmp_path
    assert calls == [
        ("fsync", temporary),
        ("rename", temporary, str(tmp_path / "x.json")),
        ("fsync", str(tmp_path)),
    ]


def test_a_file_is_never_put_in_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DiskError, match="pipe: is there and is not a regular file"):
        write_bytes(tmp_path / "pipe", b"1")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_step_is_durable_before_it_is_visible_and_its_manifest_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(monkeypatch) as calls:
        do(tmp_path)
    work = tmp_path / ".work-step"
    sealed = next(i for i, c in enumerate(calls) if c[0] == "rename" and c[2] == str(work / "manifest.json"))
    shown = calls.index(("rename", str(work), str(tmp_path / "step")))
    for name in CONTENT:
        assert calls.index(("fsync", str(work / name))) < sealed
    for folder in (work / "sub", work / "sub" / "deep"):
        assert ("fsync", str(folder)) in calls[:shown]
    assert calls[sealed - 1] == ("fsync", calls[sealed][1])
    assert calls[sealed + 1] == ("fsync", str(work))
    assert sealed + 1 < shown
    assert calls[shown + 1] == ("fsync", str(tmp_path))
    assert not [c for c in calls[sealed + 2 :] if c[0] == "fsync" and Path(c[1]) != tmp_path]


@pytest.mark.parametrize("older", [False, True], ids=["nothing before", "an older step"])
def test_a_crash_before_any_call_leaves_the_old_step_or_none_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    outcomes = set()
    for crash_at in range(99):
        run = tmp_path / str(crash_at)
        if older:
            do(run, 1, half)
        crashed = False
        with watched(monkeypatch, crash_at):
            try:
                do(run, 2)
            except Crash:
                crashed = True
        if (run / "step").exists():
            assert damaged(run / "step") is None
            assert content(run / "step") in ({**CONTENT, "half": b"half"}, CONTENT)
        outcomes.add(frozenset(content(run / "step")) if (run / "step").exists() else None)
        do(run, 2)
        assert content(run / "step") == CONTENT
        if not crashed:
            break
    assert not crashed
    assert outcomes == {None, frozenset(CONTENT)} | ({frozenset([*CONTENT, "half"])} if older else set())


def test_what_a_killed_publish_left_is_cleared_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do(tmp_path, 1)
    rename = os.rename

    def die_between(source: Any, target: Any, **rest: Any) -> None:
        if Path(source).name == ".work-step":
            raise Crash
        rename(source, target, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", die_between)
        with pytest.raises(Crash):
            do(tmp_path, 2)
    assert (tmp_path / ".old-step").exists()
    assert do(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.lock", "step"]
    (tmp_path / ".old-step" / "sub").mkdir(parents=True)  # killed while it was being deleted
    assert do(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.lock", "step"]


def test_a_reader_never_sees_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"version": 1})
    for crash_at in range(3):
        with watched(monkeypatch, crash_at), pytest.raises(Crash):
            write_json(path, {"version": 2})
        assert read_json(path)["version"] == (1 if crash_at < 2 else 2)


# The lock


HOLD = """
import sys
from pathlib import Path
from polyclinic.runs import RunFolder
with RunFolder.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of a run folder in another process."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


def test_a_folder_in_use_is_refused_naming_pid_and_host_until_its_holder_is_gone(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as other:
        with pytest.raises(BusyError) as caught:
            do(tmp_path, work=idle)
        assert caught.value.exit_code == 6
        assert f"in use by pid {other.pid} on {socket.gethostname()};" in str(caught.value)
        other.kill()
        other.wait()
    assert do(tmp_path)


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder.open(tmp_path):
        raise KeyError
    assert do(tmp_path)
    assert re.fullmatch(rf"pid {os.getpid()} on \S+\n", (tmp_path / runs.LOCK).read_text())


def test_a_file_cannot_be_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    with pytest.raises(DiskError, match="is a file"), RunFolder.open(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "words"


# Digests and JSON


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), values, max_size=5))
@settings(deadline=None, max_examples=20)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(values, values)
@settings(deadline=None, max_examples=20)
def test_digests_differ_where_values_differ(one: Any, other: Any) -> None:
    as_text = [json.dumps(v, sort_keys=True) for v in (one, other)]
    assert (digest(one) == digest(other)) is (as_text[0] == as_text[1])


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    for data in (b"", b"\n", b"x" * 1_000_001):
        (tmp_path / "file").write_bytes(data)
        assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_damaged_json_is_one_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "x.json")


def test_json_is_readable_in_every_script(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "Gesundheit", "a": "\u5065\u5eb7"})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n "b": "Gesundheit",\n "a": "\u5065\u5eb7"\n}\n'
    assert read_json(tmp_path / "x.json") == {"b": "Gesundheit", "a": "\u5065\u5eb7"}


def test_checkpoints_of_another_recipe_are_refused_and_stay(tmp_path: Path) -> None:
    """Whoever changed a key by mistake has lost nothing: the old recipe goes on."""

    def killed(folder: Path) -> dict[str, Any]:
        (folder / CHECKPOINTS / "step-00000010").mkdir(parents=True)
        raise KeyboardInterrupt

    with RunFolder.open(tmp_path) as run:
        with pytest.raises(KeyboardInterrupt):
            run.step("train", {"rate": 1}, killed)
        with pytest.raises(CheckpointError, match="holds checkpoints of a training with another recipe") as caught:
            run.step("train", {"rate": 2}, lambda _: {})
        assert caught.value.exit_code == 4
        assert run.step(
            "train", {"rate": 1}, lambda folder: {"there": (folder / CHECKPOINTS / "step-00000010").is_dir()}
        )
        assert run.manifest("train")["facts"] == {"there": True}
