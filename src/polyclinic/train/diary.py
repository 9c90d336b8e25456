"""The diary of a training: the lines of `log.jsonl`, and what a person watching sees."""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback

from polyclinic.moe.watch import over_processes
from polyclinic.progress import Progress
from polyclinic.runs import write_bytes
from polyclinic.train.metrics import ExpertLoads, Families, LanguageLoss, family_losses
from polyclinic.train.panel import panel
from polyclinic.train.reporters import Report
from polyclinic.train.speed import GIGA, Speedometer, peak_memory

LOG = "log.jsonl"


class Measured(Protocol):
    """Losses on other text, measured now and then."""

    seconds: float

    def take(self) -> dict[str, Any]:
        """Return the newest as part of a line, once; empty where there is none."""


class Diary(TrainerCallback):
    """Writes one JSON line per logging step and tells the progress; process zero speaks for all."""

    def __init__(
        self,
        path: Path,
        families: Families,
        language_loss: LanguageLoss,
        loads: ExpertLoads,
        speed: Speedometer,
        progress: Progress,
        report: Report,
        validation: Measured | None = None,
    ) -> None:
        self._path, self._language_loss, self._loads = path, language_loss, loads
        self._families, self._speed, self._progress, self._report = families, speed, progress, report
        self._validation = validation

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, and cut off lines a killed run wrote after its last checkpoint."""
        self._speed.start(args.device.type, state.global_step, args.world_size)
        if state.is_world_process_zero:
            kept = lines_until(self._path, state.global_step)
            write_bytes(self._path, "".join(f"{line}\n" for line in kept).encode())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Log with every checkpoint, the last step included: a resumed run finds no sum half done."""
        control.should_log |= control.should_save
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write what was logged; every process comes here, since sums are over all."""
        if not logs or "loss" not in logs:
            return
        line = self._line(state.global_step, logs)
        if not state.is_world_process_zero:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._report(line)
        self._tell(line, state.max_steps)

    def _tell(self, line: dict[str, Any], steps: int) -> None:
        left = self._speed.seconds_left(steps - line["step"], line["machine"]["tokens_per_second"])
        note = f"loss {line['loss']:.3f}, {line['machine']['tokens_per_second']:,.0f} tokens/s, {left:.0f} s left"
        self._progress.show(panel(line, self._families, left))
        self._progress.advance(line["step"], steps, note)

    def _line(self, step: int, logs: dict[str, float]) -> dict[str, Any]:
        languages = self._language_loss.take()
        validated: dict[str, Any] = {}
        if self._validation is not None and (validated := self._validation.take()):
            self._speed.skip(self._validation.seconds)
        memory = over_processes(torch.tensor(peak_memory(), dtype=torch.float64), largest=True).item()
        return {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "gradient_norm": logs.get("grad_norm"),
            "languages": languages,
            "families": family_losses(languages, self._families.expert_of),
            **self._loads.take(),
            **validated,
            "machine": {**self._speed.read(step), "memory_gb": round(memory / GIGA, 3)},
        }


def lines_until(path: Path, step: int) -> list[str]:
    """Return the whole lines of a log up to a step; none where there is no log."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [line for line in lines if _is_before(line, step)]


def _is_before(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False  # half a line, cut by a kill
