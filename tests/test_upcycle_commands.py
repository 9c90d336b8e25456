"""`polyclinic upcycle` as a shell sees it: what is printed, where OUT may be, and what other processes do."""

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from damage import LINE, listing, refusal
from polyclinic.cli import main
from polyclinic.errors import ProofError
from polyclinic.moe import checkpoint
from polyclinic.upcycle import build as building

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("copies")


# What is printed


def test_figures_are_the_same_as_lines_and_as_json(capfd: Capture) -> None:
    for argv in (["build", "dense", "out"], ["import-apollo", "pub", "out"], ["verify", "dense", "moe"]):
        said = []
        for json_too in ([], ["--json"]):
            capfd.readouterr()
            assert main(["upcycle", *argv, *json_too]) == 0
            said.append(capfd.readouterr())
            shutil.rmtree("out", ignore_errors=True)
        assert [s.err for s in said] == ["", ""]
        assert [line.split()[0] for line in said[0].out.splitlines()] == list(json.loads(said[1].out))


def test_a_plan_needs_no_weights_and_writes_nothing_even_where_out_is_named(capfd: Capture) -> None:
    for path in Path("dense").iterdir():
        if path.name != "config.json":
            path.unlink()
    Path("there").mkdir()
    before = listing()
    for out in ([], ["out"], ["there"], ["dense"]):
        assert main(["upcycle", "build", "dense", *out, "--dry-run"]) == 0
    said = capfd.readouterr()
    assert (listing(), said.err) == (before, "")
    assert said.out.count("qwen2 -> qwen2_moe") == 4


SHIPPED = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize(("size", "figures"), [("0.5b", "651M 520M"), ("1.5b", "2.04B 1.63B"), ("7b", "10.06B 8.02B")])
@pytest.mark.parametrize("command", ["run", "upcycle build"])
def test_the_shipped_recipes_print_the_papers_sizes(command: str, size: str, figures: str, capfd: Capture) -> None:
    before = listing()
    assert main([*command.split(), str(SHIPPED / f"apollo-{size}.yaml"), "--dry-run"]) == 0
    said = {line.split()[0]: line.split()[1] for line in capfd.readouterr().out.splitlines()}
    assert f"{said['total']} {said['active']}" == figures
    assert listing() == before


# OUT


def left_by_a_person(path: str) -> None:
    Path(path).mkdir()
    Path(path, "notes.txt").write_text("mine")


OUTS = {
    "a folder": (lambda: left_by_a_person("out"), "out", "out: is there already"),
    "an empty folder": (lambda: Path("out").mkdir(), "out", "out: is there already"),
    "a file": (lambda: Path("out").write_text("mine"), "out", "out: is there already"),
    "a link to nothing": (lambda: Path("out").symlink_to("gone"), "out", "out: is there already"),
    "a finished one": (lambda: shutil.copytree("moe", "out"), "out", "out: is there already"),
    "here": (lambda: None, ".", "is there already"),
    "above": (lambda: None, "dense/..", "dense/..: is there already"),
    "the top": (lambda: None, "/", "/: is there already"),
    "the input": (lambda: None, "IN", "is also an input"),
    "the input by another name": (lambda: None, "moe/../IN/", "is also an input"),
    "in the input": (lambda: None, "IN/out", "lies inside IN, which is an input; choose a folder beside it"),
    "deep in the input": (lambda: None, "IN/a/b", "lies inside IN, which is an input"),
    "in the input by a link": (lambda: Path("link").symlink_to("IN"), "link/out", "lies inside IN, which is an input"),
    "no name": (lambda: None, "", "'' is not the name of a folder"),
}


@pytest.mark.parametrize(("action", "source"), [("build", "dense"), ("import-apollo", "pub")])
@pytest.mark.parametrize(("prepare", "out", "words"), OUTS.values(), ids=OUTS)
def test_a_folder_that_is_there_or_read_from_is_2_and_stays(
    prepare: Any, out: str, words: str, action: str, source: str, capfd: Capture
) -> None:
    prepare()
    if Path("link").is_symlink():
        Path("link").unlink()
        Path("link").symlink_to(source)
    code, line = refusal(["upcycle", action, source, out.replace("IN", source)], capfd)
    assert (code, words.replace("IN", source) in line) == (2, True), line


@pytest.mark.parametrize("out", ["file/out", "file/a/out", "new/" + "x" * 250, "new/" + "x" * 300, "loop/out"])
def test_a_place_that_cannot_hold_a_folder_is_5(out: str, capfd: Capture) -> None:
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    assert refusal(["upcycle", "build", "dense", out], capfd)[0] == 5


def test_folders_above_are_made_and_go_again_where_nothing_came_to_be(capfd: Capture) -> None:
    assert refusal(["upcycle", "build", "dense", "a/b/out", "--layers", "3"], capfd)[0] == 3
    assert main(["upcycle", "build", "dense", "a/b/out"]) == 0
    assert [p.name for p in Path("a/b").iterdir()] == ["out"]
    assert main(["upcycle", "build", "dense", "a/b/other", "--layers", "3"]) == 3
    assert [p.name for p in Path("a/b").iterdir()] == ["out"]


def test_a_failed_proof_is_told_by_the_name_of_out(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def verify(dense: Path, out: Path, seed: int) -> None:
        raise ProofError(out / "x", f"{out} is wrong", "report this")

    monkeypatch.setattr(building, "verify", verify)
    assert refusal(["upcycle", "build", "dense", "a/out"], capfd) == (
        4,
        "error: a/out/x: a/out is wrong; report this\n",
    )


@pytest.mark.parametrize("moment", ["resolve", "verify"])
def test_what_came_to_be_meanwhile_is_not_replaced(
    moment: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """Before the lock is taken, or while the mixture is made."""
    module: Any = {"resolve": checkpoint, "verify": building}[moment]
    whole = getattr(module, moment)

    def late(*values: Any) -> Any:
        left_by_a_person("out")
        return whole(*values)

    monkeypatch.setattr(module, moment, late)
    assert main(["upcycle", "build", "dense", "out"]) == 2
    assert capfd.readouterr().err.startswith("error: out: is there already; ")
    assert [p.name for p in Path("out").iterdir()] == ["notes.txt"]
    assert {p.name for p in Path().iterdir()} == {"dense", "moe", "pub", "out"}


# Other processes


@contextmanager
def started(
    *argv: str, at_the_proof: Callable[[], object], prepare: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """Run a command in a process of its own, which calls `at_the_proof` when all is written; gives its id."""
    pid = os.fork()
    if not pid:
        _run(argv, at_the_proof, prepare)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended, unless the test failed
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _run(argv: tuple[str, ...], at_the_proof: Callable[[], object], prepare: Callable[[], object]) -> NoReturn:
    code, proven = 1, building.verify

    def verify(dense: Path, out: Path, seed: int) -> dict[str, Any]:
        at_the_proof()
        return proven(dense, out, seed)

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        prepare()
        building.verify = verify
        code = main(["upcycle", *argv])
    except SystemExit as err:
        code = int(err.code or 0)
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until_there(path: str) -> None:
    """Wait for a file; a minute is for a machine that has other work."""
    for _ in range(60_000):
        if Path(path).exists():
            return
        time.sleep(0.001)
    pytest.fail(f"{path} did not come")


def test_a_second_build_to_the_same_folder_is_6_and_the_first_one_ends_well(capfd: Capture) -> None:
    reader, writer = os.pipe()

    def wait() -> None:
        os.close(writer)
        os.read(reader, 1)

    with started("build", "dense", "out", at_the_proof=wait) as first:
        until_there(".work-out/polyclinic.json")
        for argv in (["build", "dense", "out"], ["import-apollo", "pub", "out"]):
            code, line = refusal(["upcycle", *argv], capfd)
            assert (code, f"in use by pid {first} on " in line) == (6, True), line
        assert main(["upcycle", "build", "dense", "other"]) == 0
        os.write(writer, b"!")
        assert ended(first) == 0
    assert main(["upcycle", "verify", "dense", "out"]) == 0
    assert {p.name for p in Path().iterdir()} == {"dense", "moe", "pub", "out", "other"}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_build_leaves_nothing_that_stays(sent: signal.Signals, code: int) -> None:
    before = listing()
    with started("build", "dense", "a/out", at_the_proof=lambda: time.sleep(60)) as process:
        until_there("a/.work-out/polyclinic.json")
        os.kill(process, sent)
        assert ended(process) == code
    if sent != signal.SIGKILL:
        assert listing() == before
        return
    # Nobody could tidy up; the next command does, and takes nothing of what was left.
    Path("a/.work-out/model-00009-of-00009.safetensors").write_text("of another parent")
    assert main(["upcycle", "build", "dense", "a/out"]) == 0
    assert [p.name for p in Path("a").iterdir()] == ["out"]
    assert not list(Path("a/out").glob("*00009*"))


def test_a_full_disk_is_5_and_leaves_nothing() -> None:
    reader, writer = os.pipe()

    def small_files_only() -> None:
        sys.stderr = os.fdopen(writer, "w", buffering=1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    before = listing()
    with started("build", "dense", "out", at_the_proof=lambda: None, prepare=small_files_only) as process:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        assert (ended(process), bool(LINE.fullmatch(said))) == (5, True), said
    assert "file too large; check space" in said
    assert listing() == before
