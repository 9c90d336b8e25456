"""What may end a training early: a signal, a full disk, too little memory. None of them loses work."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from polyclinic.errors import DiskError, PolyclinicError
from polyclinic.train import distributed

STATES_OF_ADAMW = 2
ECHO_SECONDS = 2.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "std::bad_alloc")


class Stop(TrainerCallback):
    """Saves and ends the training behind the step in which a signal came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask for a checkpoint and the end, in every process behind the same step."""
        self.signal = max(distributed.gather(self.signal or 0)) or None
        if self.signal is not None:
            control.should_save = control.should_training_stop = True
        return control


@contextmanager
def stopping(say: Callable[[str], None]) -> Iterator[Stop]:
    """Let the first SIGTERM or SIGINT save and stop, the second stop at once.

    Behind the block: SystemExit 143 for SIGTERM, KeyboardInterrupt for SIGINT. Signals reach only
    the main thread; elsewhere this does nothing.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    # torchrun passes on, as SIGTERM, the Ctrl-C that its processes have heard themselves.
    echo, first = (ECHO_SECONDS if distributed.size() > 1 else 0.0), time.monotonic()

    def heard(number: int, frame: Any) -> None:
        nonlocal first
        if stop.signal is None:
            stop.signal, first = number, time.monotonic()
            say("stopping behind this step; once more to leave at once")
        elif time.monotonic() - first >= echo:
            for each, handler in before.items():
                signal.signal(each, handler)
            os.kill(os.getpid(), number)

    for number in SIGNALS:
        signal.signal(number, heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if stop.signal is not None:
        raise SystemExit(128 + stop.signal)


def checkpoint_bytes(model: nn.Module) -> int:
    """Return about how large a checkpoint is: weights once, and AdamW's two states of what is trained."""
    weights = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    trained = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters() if p.requires_grad}
    return sum(weights.values()) + STATES_OF_ADAMW * sum(trained.values())


def check_space(folder: Path, model: nn.Module, keep: int) -> None:
    """Raise DiskError unless `keep` checkpoints and one in the making fit beside what is there."""
    held = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    needed = (keep + 1) * checkpoint_bytes(model) - held
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"{keep + 1} checkpoints need {needed / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free"
        raise DiskError(folder, what, "free space, lower train.keep, or choose another --out")


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """Turn a want of memory into one line that names the recipe keys to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as err:
        if isinstance(err, RuntimeError) and not any(mark in str(err) for mark in _NO_MEMORY):
            raise
        what = f"out of memory ({(str(err) or type(err).__name__).splitlines()[0][:120]})"
        keys = "lower batch_packs and raise accumulate, or set gradient_checkpointing, or lower corpus.pack_tokens"
        raise PolyclinicError(where, what, keys) from err
