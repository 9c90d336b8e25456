"""Curves for other programs: the lines of the log, number by number, to TensorBoard, Trackio or W&B.

The libraries' own interfaces are used: the callbacks of transformers see only what its Trainer
logs, not what stands in the lines of `log.jsonl`. Each library is optional and imported when used;
nothing leaves the machine unless a person asks the library itself for it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from polyclinic.errors import MissingDependencyError

Report = Callable[[Mapping[str, Any]], None]
PROJECT = "polyclinic"


def check_reporters(names: Sequence[str]) -> None:
    """Raise MissingDependencyError for the first library that is not installed."""
    for name in names:
        if find_spec(name) is None:
            what = f"report_to names {name}, which is not installed"
            raise MissingDependencyError("train", what, f"pip install 'polyclinic[{name}]', or leave it out")


def scalars(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a line of the log by their path, such as `languages/sw/loss`; `step` is left out."""
    out: dict[str, float] = {}
    for key, value in line.items():
        pairs = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(pairs, Mapping):
            out |= scalars({str(k): v for k, v in pairs.items()}, f"{prefix}{key}/")
        elif value is not None and (prefix or key != "step"):
            out[f"{prefix}{key}"] = float(value)
    return out


@contextmanager
def reporting(names: Sequence[str], folder: Path, resumed: Path | None) -> Iterator[Report]:
    """Open the libraries, yield what takes a line of the log, and close them.

    What TensorBoard and W&B write goes below `folder`; Trackio keeps a database of its own
    (TRACKIO_DIR). `resumed`: the checkpoint that a training goes on from.
    """
    first_step = 0 if resumed is None else int(resumed.name.rpartition("-")[2])
    with ExitStack() as stack:
        takers = [stack.enter_context(_OPENERS[name](folder, first_step)) for name in names]

        def report(line: Mapping[str, Any]) -> None:
            values = scalars(line)
            for take in takers:
                take(line["step"], values)

        yield report


Taker = Callable[[int, dict[str, float]], None]


@contextmanager
def _tensorboard(folder: Path, first_step: int) -> Iterator[Taker]:
    from torch.utils.tensorboard import SummaryWriter

    # What a killed run wrote behind its last checkpoint is hidden.
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def take(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield take
    finally:
        writer.close()


@contextmanager
def _trackio(folder: Path, first_step: int) -> Iterator[Taker]:
    import trackio

    with redirect_stdout(StringIO()):  # what we print is for programs to read
        run = trackio.init(project=PROJECT, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    try:
        yield lambda step, values: run.log(values, step=step)
    finally:
        with redirect_stdout(StringIO()):
            trackio.finish()


@contextmanager
def _wandb(folder: Path, first_step: int) -> Iterator[Taker]:
    import wandb

    settings = wandb.Settings(
        console="off", disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True, silent=True
    )
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    run = wandb.init(project=PROJECT, dir=str(folder), mode=mode, settings=settings)
    try:
        yield lambda step, values: run.log(values, step=step)
    finally:
        run.finish()
        wandb.teardown()  # waits for the process that writes: the folder is hashed next
        for path in (folder / "wandb").glob("**/*"):
            if path.is_symlink():  # to names of the folder that is being made, which gets another
                path.unlink()


_OPENERS: dict[str, Callable[[Path, int], Any]] = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}
