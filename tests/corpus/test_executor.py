"""The executor: what is finished stays, what fails is named, who is killed is an error and never a hang."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polyclinic.corpus.engine import executor
from polyclinic.corpus.engine.engines import Inline, Local, engine
from polyclinic.corpus.engine.executor import Attempt, Task, run, sweep
from polyclinic.errors import BusyError, DataError, DiskError, PolyclinicError, RecipeError
from polyclinic.runs import sha256_file

PRIVATE = "the text of a patient"


def write(folder: Path, text: str, log: Path) -> Mapping[str, Any]:
    """Write a file, and note beside all folders that this was done."""
    (folder / "data.txt").write_text(text)
    with log.open("a") as file:
        file.write(text + "\n")
    return {"text": text}


def fail(folder: Path, error: Exception) -> Mapping[str, Any]:
    (folder / "data.txt").write_text("half")
    raise error


def die(folder: Path, mark: Path) -> Mapping[str, Any]:
    """Be killed as soon as another task is on, and note when."""
    while not (found := list(mark.iterdir())):
        time.sleep(0.01)
    (mark / "died").write_text(f"{time.monotonic()} {found[0].name}")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def wait(folder: Path, mark: Path, seconds: float) -> Mapping[str, Any]:
    (mark / f"{os.getpid()}").touch()
    time.sleep(seconds)
    return {}


def quiet(number: int, attempt: Attempt) -> None:
    pass


def tasks(place: Path, *texts: str) -> list[Task]:
    log = place.parent / "log"
    return [Task(f"task{i}", {"text": text}, partial(_worded, text=text, log=log)) for i, text in enumerate(texts)]


def _worded(folder: Path, text: str, log: Path) -> Mapping[str, Any]:
    return write(folder, text, log)


def done(place: Path) -> list[str]:
    """Return what was done since this was last asked."""
    log = place.parent / "log"
    found = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def test_what_is_finished_is_not_done_again_and_what_changed_or_broke_is(tmp_path: Path) -> None:
    place = tmp_path / "place"
    first = run(tasks(place, "a", "b", "c"), place, Inline(), quiet)
    assert done(place) == ["a", "b", "c"]
    assert [m["facts"]["text"] for m in first] == ["a", "b", "c"]
    assert run(tasks(place, "a", "b", "c"), place, Inline(), quiet) == first
    assert done(place) == []
    run(tasks(place, "a", "x", "c"), place, Inline(), quiet)
    assert done(place) == ["x"]
    (place / "task2" / "data.txt").write_text("spoilt")
    run(tasks(place, "a", "x", "c"), place, Inline(), quiet)
    assert done(place) == ["c"]
    assert [(place / f"task{i}" / "data.txt").read_text() for i in range(3)] == ["a", "x", "c"]


def test_a_task_that_only_has_another_number_now_keeps_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    run(tasks(place, "a", "b", "c"), place, Inline(), quiet)
    before = {t: (place / f"task{i}").stat().st_ino for i, t in enumerate("abc")}
    done(place)
    run(tasks(place, "new", "c", "a"), place, Inline(), quiet)
    assert done(place) == ["new"]
    assert [(place / f"task{i}").stat().st_ino for i in (1, 2)] == [before["c"], before["a"]]
    assert sorted(p.name for p in place.iterdir()) == ["task0", "task1", "task2"]


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for name in (".work-task0-1", ".old-task0", ".moved-task1", "of another plan"):
        (place / name).mkdir(parents=True)
        (place / name / "half").touch()
    run(tasks(place, "a"), place, Inline(), quiet)
    assert [p.name for p in place.iterdir()] == ["task0"]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_fails_stops_no_other_and_the_first_of_all_is_told(tmp_path: Path, workers: int) -> None:
    place = tmp_path / "place"
    given = tasks(place, "a", "b", "c", "d", "e")
    given[1] = given[1]._replace(work=partial(fail, error=DataError("b.jsonl:7", "is not JSON", "correct it")))
    given[3] = given[3]._replace(work=partial(fail, error=ValueError(PRIVATE)))
    with pytest.raises(DataError) as caught, engine("local", workers) as running:
        run(given, place, running, quiet)
    assert str(caught.value) == "b.jsonl:7: is not JSON (and 1 more of 5 failed); correct it"
    assert sorted(done(place)) == ["a", "c", "e"]
    assert sorted(p.name for p in place.iterdir()) == ["task0", "task2", "task4"]


def test_a_fault_is_named_by_its_task_and_never_by_its_text(tmp_path: Path) -> None:
    task = Task("task0", {}, partial(fail, error=KeyError(PRIVATE)))
    with pytest.raises(PolyclinicError) as caught:
        run([task], tmp_path / "place", Inline(), quiet)
    assert str(caught.value).startswith("task0: KeyError; ")
    assert caught.value.__cause__ is None


def test_a_full_disk_stops_all_names_place_and_room_and_keeps_what_is_finished(tmp_path: Path) -> None:
    place = tmp_path / "place"
    given = tasks(place, "a", "b", "c")
    full = OSError(errno.ENOSPC, "Error writing bytes to file")  # as Arrow tells it, without a name
    given[1] = given[1]._replace(work=partial(fail, error=full))
    with pytest.raises(DiskError, match=r"place: no space left, [\d,]+ bytes are free; make room") as caught:
        run(given, place, Inline(), quiet)
    assert caught.value.exit_code == 5
    assert done(place) == ["a"]
    assert sorted(p.name for p in place.iterdir()) == ["task0"]


def test_a_killed_worker_is_an_error_at_once_and_the_others_stop(tmp_path: Path) -> None:
    place, marks = tmp_path / "place", tmp_path / "marks"
    marks.mkdir()
    given = [
        *tasks(place, "a"),
        Task("long", {}, partial(wait, mark=marks, seconds=60)),
        Task("dead", {}, partial(die, mark=marks)),
    ]
    with pytest.raises(PolyclinicError, match="a worker was killed") as caught, Local(2) as running:
        run(given, place, running, quiet)
    died, other = (marks / "died").read_text().split()
    assert time.monotonic() - float(died) < 5  # 0.1 s, but for a busy machine
    assert caught.value.exit_code == 1
    assert "run the same command" in caught.value.try_
    assert ended(int(other))
    assert (place / "task0" / "data.txt").read_text() == "a"


def ended(pid: int, seconds: float = 10) -> bool:
    """Say whether a process ends within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


PARENT = """
import signal
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from polyclinic.cli import main
from polyclinic import commands_corpus
from polyclinic.corpus.engine.engines import Local
from polyclinic.corpus.engine.executor import Task, run
import test_executor
def work(arguments):
    place, marks = Path({place!r}), Path({marks!r})
    given = [Task(str(i), {{}}, partial(test_executor.wait, mark=marks, seconds=60 * (i > 0))) for i in range(4)]
    with Local(2) as running:
        run(given, place, running, test_executor.quiet)
commands_corpus.cmd_corpus_build = work
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite runs in the background
    sys.exit(main(["corpus", "build", "r.yaml", "--out", "out"]))
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_stop_with_their_parent_and_its_finished_tasks_stay(tmp_path: Path, how: int, code: int) -> None:
    place, marks, script = tmp_path / "place", tmp_path / "marks", tmp_path / "parent.py"
    marks.mkdir()
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), place=str(place), marks=str(marks)))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(list(marks.iterdir())) < 2 or not (place / "0").exists():
        assert time.monotonic() < until
        assert parent.poll() is None
        time.sleep(0.05)
    clock = time.monotonic()
    parent.send_signal(how)
    _, said = parent.communicate(timeout=30)
    assert parent.returncode == code
    assert all(ended(int(p.name)) for p in marks.iterdir())
    assert time.monotonic() - clock < 10
    assert "Traceback" not in said
    before = sha256_file(place / "0" / "manifest.json")
    sweep(place, [Task("0", {}, partial(fail, error=KeyError()))])
    assert sha256_file(place / "0" / "manifest.json") == before
    assert [p.name for p in place.iterdir()] == ["0"]


def test_who_still_works_in_a_place_keeps_others_from_sweeping_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PATIENCE", 0.1)
    place = tmp_path / "place"

    def inside(folder: Path) -> Mapping[str, Any]:
        with pytest.raises(BusyError, match="another run still works"):
            sweep(place, [])
        assert folder.is_dir()
        return {}

    place.mkdir()
    assert executor.do(Task("task0", {}, inside), place).did
    sweep(place, [])
    assert list(place.iterdir()) == []


def test_slurm_runs_nothing_by_itself() -> None:
    with pytest.raises(RecipeError, match=r"submit\.sh"):
        engine("slurm", 2)
