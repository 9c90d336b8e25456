"""What a training says of itself: sums since the last line, and the lines of `log.jsonl`."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from polyclinic.progress import Progress
from polyclinic.runs import write_bytes
from polyclinic.train import distributed

LOG = "log.jsonl"


class LanguageLoss:
    """Sums of token losses per language since the last line of the log."""

    def __init__(self, languages: list[str]) -> None:
        self._languages = languages
        self._sums = torch.zeros(len(languages), 2, dtype=torch.float64)

    def add(self, losses: Tensor, language_ids: Tensor, counted: Tensor) -> None:
        """Add token losses (flat), their language ids and whether they count."""
        ids = language_ids[counted].cpu()
        values = torch.stack([losses.detach()[counted].double().cpu(), torch.ones(len(ids), dtype=torch.float64)], 1)
        self._sums.index_add_(0, ids, values)

    def take(self) -> dict[str, dict[str, float]]:
        """Return mean loss and tokens of each language seen, and start again."""
        out = {
            code: {"loss": total / count, "tokens": int(count)}
            for code, (total, count) in zip(self._languages, distributed.total(self._sums).tolist(), strict=True)
            if count
        }
        self._sums.zero_()
        return out


class ExpertLoads:
    """Picks per sparse layer, language and expert since the last line of the log."""

    def __init__(self, layers: list[int], languages: list[str]) -> None:
        self._layers, self._languages = layers, languages
        self._sums: Tensor | None = None

    def add(self, loads_LGE: Tensor) -> None:
        """Add counts (layers, languages, experts)."""
        self._sums = loads_LGE if self._sums is None else self._sums + loads_LGE

    def take(self) -> dict[str, Any]:
        """Return the shares of the experts by layer, over all and per language, and start again."""
        if self._sums is None:
            return {}
        sums_LGE, self._sums = self._sums, None
        seen = [g for g, count in enumerate(sums_LGE.sum((0, 2)).tolist()) if count]
        by_language = {self._languages[g]: self._shares(sums_LGE[:, g]) for g in seen}
        return {"experts": self._shares(sums_LGE.sum(1)), "language_experts": by_language}

    def _shares(self, loads_LE: Tensor) -> dict[str, list[float]]:
        shares_LE = loads_LE.double() / loads_LE.sum(-1, keepdim=True).clamp(min=1)
        rounded = [[round(share, 4) for share in row] for row in shares_LE.tolist()]
        return {str(layer): row for layer, row in zip(self._layers, rounded, strict=True)}


class Diary(TrainerCallback):
    """Writes one JSON line per logging step and tells the progress."""

    def __init__(
        self, path: Path, language_loss: LanguageLoss, loads: ExpertLoads, step_tokens: int, progress: Progress
    ) -> None:
        self._path, self._language_loss, self._loads = path, language_loss, loads
        self._step_tokens, self._progress = step_tokens, progress
        self._clock, self._step = time.perf_counter(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, and cut off lines a killed run wrote after its last checkpoint."""
        self._clock, self._step = time.perf_counter(), state.global_step
        if not state.is_world_process_zero:
            return
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _is_before(line, state.global_step)]
        write_bytes(self._path, "".join(f"{line}\n" for line in kept).encode())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Log with every checkpoint, the last step included: a resumed run finds no sum half done."""
        control.should_log |= control.should_save
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write what was logged."""
        if not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        speed = (state.global_step - self._step) * self._step_tokens / max(now - self._clock, 1e-9)
        self._clock, self._step = now, state.global_step
        languages = self._language_loss.take()
        if not state.is_world_process_zero:
            self._loads.take()
            return
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "gradient_norm": logs.get("grad_norm"),
            "tokens_per_second": round(speed, 1),
            "languages": languages,
            **self._loads.take(),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        left = (state.max_steps - state.global_step) * self._step_tokens / max(speed, 1e-9)
        note = f"loss {logs['loss']:.3f}, {speed:,.0f} tokens/s, {left:.0f} s left"
        self._progress.advance(state.global_step, state.max_steps, note)


def _is_before(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False  # half a line, cut by a kill
