"""Trainings in forked children that die at a chosen touch of the disk, and what they leave."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from transformers import AutoModelForCausalLM

from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection, TrainingSection
from polyclinic.runs import CHECKPOINTS, damaged
from polyclinic.train import checkpoint
from polyclinic.train.loop import fit
from polyclinic.train.report import read_log

STEPS, EVERY = 6, 2
LOOP: dict[str, Any] = {
    "steps": STEPS, "batch_packs": 1, "accumulate": 2, "learning_rate": 5e-3, "save_every": EVERY, "log_every": 1,
    "threads": 1,
}  # fmt: skip
DIED = 77
TOUCHES = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")  # of os; besides, every tensor file written


class Touches:
    """Counts what touches the disk while it is on, and dies behind touch number `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.names: list[str] = []
        self._last = last

    def _touched(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._last:
            os._exit(DIED)

    def watch(self, owner: Any, name: str) -> None:
        """Put the count behind a function."""
        stock = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            out = stock(*args, **kwargs)
            self._touched(name)
            return out

        setattr(owner, name, watched)


def child(work: Callable[[], object]) -> int:
    """Do some work in a fork and return its exit status; what it says is dropped."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        work()
        status = 0
    finally:
        os._exit(status)
    return 1


def train(model_folder: Path, packed: Path, folder: Path, last: int | None = None) -> list[str]:
    """Train, saving into a folder; returns the touches of its checkpoints, or dies at one."""
    touches = Touches(last)
    stock = checkpoint.save

    def watched_save(*args: Any, **kwargs: Any) -> None:
        before = {name: getattr(os, name) for name in TOUCHES}
        write = safetensors.torch.save_file
        for name in TOUCHES:
            touches.watch(os, name)
        checkpoint.save_file = write
        touches.watch(checkpoint, "save_file")
        try:
            stock(*args, **kwargs)
        finally:
            for name, function in before.items():
                setattr(os, name, function)
            checkpoint.save_file = write

    checkpoint.save = watched_save
    try:
        folder.mkdir(exist_ok=True)
        model = AutoModelForCausalLM.from_pretrained(model_folder, local_files_only=True)
        section = (MoeTrainingSection if (model_folder / "polyclinic.json").is_file() else TrainingSection)(**LOOP)
        fit(model, packed, section, folder, 0, Silent())
        safetensors.torch.save_file({n: t.clone() for n, t in model.state_dict().items()}, folder / "end.safetensors")
    finally:
        checkpoint.save = stock
    (folder / "touches.json").write_text(json.dumps(touches.names))
    return touches.names


def result(folder: Path) -> tuple[str, Any]:
    """Return the digest of the final weights and the log in hexadecimal, without what the machine did."""
    lines = read_log(folder)
    for line in lines:
        line.pop("machine")
    log = json.loads(json.dumps(lines), parse_float=lambda text: float(text).hex())
    return hashlib.sha256((folder / "end.safetensors").read_bytes()).hexdigest(), log


def good_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints that may be resumed from."""
    found = sorted((folder / CHECKPOINTS).glob("step-*"))
    return [int(path.name.removeprefix("step-")) for path in found if damaged(path) is None]


def survives(model_folder: Path, packed: Path, folder: Path, last: int, whole: Path) -> None:
    """Die at one touch, go on, and end as if nothing had been; never is more than an interval redone."""
    assert child(lambda: train(model_folder, packed, folder, last)) == DIED
    reached = read_log(folder)[-1]["step"]
    left = good_steps(folder)
    assert max(left, default=0) >= reached - EVERY
    assert reached == EVERY or left, "no checkpoint is left that may be resumed from"
    assert child(lambda: train(model_folder, packed, folder)) == 0
    assert result(folder) == result(whole)
    assert not [p.name for p in (folder / CHECKPOINTS).iterdir() if p.name.startswith(".")]


def killed_at_random(model_folder: Path, packed: Path, folder: Path, seconds: float) -> bool:
    """Train in a child that gets SIGKILL after some seconds; says whether it was still at work."""
    pid = os.fork()
    if not pid:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            train(model_folder, packed, folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
