"""What ends a training early loses nothing, and says what to do in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from polyclinic.errors import DiskError, PolyclinicError
from polyclinic.moe.checkpoint import load_model
from polyclinic.runs import CHECKPOINTS, damaged
from polyclinic.train.stop import check_space, checkpoint_bytes, memory_errors, stopping
from train.test_loop import SECTION, Listener, train, weights

SIGNAL_ITSELF = """
import json, os, sys
from pathlib import Path
from polyclinic.cli import _terminated
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.run import train_mixture
import signal

class Signaller(Silent):
    def __init__(self, number, times):
        self.number, self.times, self.said = number, times, []
    def advance(self, done, total, note=""):
        if done == 6:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
    def say(self, message):
        self.said.append(message)

signal.signal(signal.SIGTERM, _terminated)
section, ends = MoeTrainingSection.model_validate_json(sys.argv[1]), {}
for name, number, times in json.loads(sys.argv[5]):
    folder, signaller, code = Path(sys.argv[4]) / name, Signaller(number, times), 0
    folder.mkdir()
    try:
        train_mixture(section, Path(sys.argv[2]), Path(sys.argv[3]), folder, 0, signaller)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as err:
        code = err.code
    ends[name] = [code, signaller.said]
print(json.dumps(ends))
"""
SIGNALS = [("term", signal.SIGTERM, 1), ("int", signal.SIGINT, 1), ("twice", signal.SIGTERM, 2)]


class Usage(NamedTuple):
    free: int


@pytest.fixture(scope="module")
def mixture(mixtures: dict[str, Path]) -> Path:
    return mixtures["qwen3"]


@pytest.fixture(scope="module")
def signalled(mixture: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three trainings in one process of their own, each signalled in its sixth step, with how each ended."""
    root = tmp_path_factory.mktemp("signalled")
    given = [SECTION.model_dump_json(), str(mixture), str(packed), str(root), json.dumps(SIGNALS)]
    done = subprocess.run([sys.executable, "-c", SIGNAL_ITSELF, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(mixture: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(mixture, packed, folder)
    return folder


@pytest.mark.parametrize(("name", "code"), [("term", 143), ("int", 130)])
def test_a_signal_saves_behind_the_step_and_the_run_goes_on_from_there(
    mixture: Path, packed: Path, whole: Path, signalled: tuple[Path, dict[str, Any]], name: str, code: int
) -> None:
    folder, (ended, said) = signalled[0] / name, signalled[1][name]
    assert ended == code
    assert any("stopping behind this step" in line for line in said)
    newest = max((folder / CHECKPOINTS).glob("step-*"))
    assert newest.name in ("step-00000006", "step-00000007")  # 6 was logged when it came; 4 was the last by plan
    assert damaged(newest) is None
    listener = Listener()
    assert train(mixture, packed, folder, listener)["resumed"]
    assert listener.said == [f"resuming from {newest.name}"]
    assert weights(folder) == weights(whole)


def test_a_second_signal_leaves_at_once(signalled: tuple[Path, dict[str, Any]]) -> None:
    root, ends = signalled
    assert ends["twice"][0] == 143
    assert max((root / "twice" / CHECKPOINTS).glob("step-*")).name == "step-00000004"


def test_handlers_are_as_before_once_training_is_over() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(PolyclinicError), stopping(lambda _: None), memory_errors("train"):
        raise MemoryError
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), stopping(said.append):
        os.kill(os.getpid(), signal.SIGINT)
    assert len(said) == 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


# Space


def test_the_size_foretold_is_that_of_a_checkpoint(mixture: Path, packed: Path, tmp_path: Path) -> None:
    train(mixture, packed, tmp_path)
    held = max((tmp_path / CHECKPOINTS).glob("step-*"))
    size = sum(p.stat().st_size for p in held.iterdir() if p.suffix == ".safetensors")
    assert size == pytest.approx(checkpoint_bytes(load_model(mixture)), rel=0.1)


def test_too_little_space_is_found_before_the_first_step(
    mixture: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000))
    with pytest.raises(DiskError, match=r"3 checkpoints need .* GB more, 0\.00 GB are free") as caught:
        train(mixture, packed, tmp_path)
    assert caught.value.exit_code == 5
    assert not (tmp_path / CHECKPOINTS).exists()


def test_checkpoints_that_are_there_count_as_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(100, 10)  # 1,010 numbers: 3 * 4 * 1010 bytes a checkpoint
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(3 * 12_120 - 1))
    with pytest.raises(DiskError):
        check_space(tmp_path, model, keep=2)
    (tmp_path / "old").write_bytes(b"x")
    check_space(tmp_path, model, keep=2)


def test_what_is_not_trained_has_no_states_to_save() -> None:
    model = nn.Linear(100, 10)
    model.bias.requires_grad_(False)
    assert checkpoint_bytes(model) == 4 * (1010 + 2 * 1000)


def mount(place: Path, size: int, *options: str) -> int:
    command = ["/usr/bin/mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of its own, to be given its size."""
    place = tmp_path / "disk"
    place.mkdir()
    if not Path("/usr/bin/mount").exists() or mount(place, 1 << 20):
        pytest.skip("a small file system cannot be mounted")
    yield place
    subprocess.run(["/usr/bin/umount", str(place)], check=True)


@pytest.mark.parametrize("share", [0.3, 1.5, 2.95])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_once_there_is_space(
    mixture: Path, packed: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Room for a share of a checkpoint, of three that must be there at once."""
    monkeypatch.setattr("polyclinic.train.loop.check_space", lambda *_: None)
    mount(small_disk, int(share * checkpoint_bytes(load_model(mixture))), "remount")
    with pytest.raises(DiskError, match=r"could not be written .*MB are free") as caught:
        train(mixture, packed, small_disk)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    kept = list((small_disk / CHECKPOINTS).glob("step-*"))
    assert len(kept) == int(share)
    assert all(damaged(path) is None for path in kept)
    mount(small_disk, 1 << 26, "remount")
    assert train(mixture, packed, small_disk)["resumed"] is bool(kept)


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_a_want_of_memory_names_the_keys_to_change(error: BaseException) -> None:
    keys = "batch_packs.*accumulate.*gradient_checkpointing"
    with pytest.raises(PolyclinicError, match=f"out of memory.*{keys}") as caught, memory_errors("train"):
        raise error
    assert "\n" not in str(caught.value)


def test_a_real_allocation_that_fails_is_told_so() -> None:
    with pytest.raises(PolyclinicError, match="out of memory"), memory_errors("train"):
        torch.empty(1 << 60)


def test_other_faults_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("train"):
        raise RuntimeError("shapes do not fit")
