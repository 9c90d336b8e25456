"""Held-out loss while a model trains: per language, as a user of the checkpoint would get it, and the best step.

The validation text is set aside from training alone (`corpus.validation`); what `evaluate` asks for is
never in it. Nothing here draws a random number or keeps a gradient, so a training ends with the
same weights whether it is watched or not.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import TrainerCallback

from polyclinic.corpus.pack.pack import IGNORED, PADDING_LANGUAGE
from polyclinic.recipe import TrainingSection
from polyclinic.runs import CHECKPOINTS, damaged, write_json
from polyclinic.train import checkpoint
from polyclinic.train.diary import LOG, lines_until
from polyclinic.train.loss import head_gives_losses, shifted
from polyclinic.train.metrics import LanguageLoss, macro
from polyclinic.train.packs import Packs, collate


class Best(NamedTuple):
    """The step with the lowest macro average so far."""

    step: int
    macro: float


class Validation(TrainerCallback):
    """Every so many steps and behind the last, measures; with keep_best, keeps the best step's checkpoint."""

    def __init__(self, packs: Packs, settings: TrainingSection, folder: Path, say: Callable[[str], None]) -> None:
        self._packs, self._settings, self._folder, self._say = packs, settings, folder, say
        self._root = folder / CHECKPOINTS
        self._result: dict[str, Any] | None = None
        self.best: Best | None = None
        self.seconds = 0.0  # of the last measurement

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Find the best step of a resumed run: the log says it, and its checkpoint must be whole."""
        if not self._settings.keep_best:
            return
        lines = [json.loads(line) for line in lines_until(self._folder / LOG, state.global_step)]
        seen = [Best(line["step"], line["validation"]["macro"]) for line in lines if "validation" in line]
        ranked = sorted(seen, key=lambda one: one.macro)
        whole = (one for one in ranked if damaged(checkpoint.folder_of(self._root, one.step)) is None)
        self.best = next(whole, None)
        if ranked and self.best != ranked[0]:
            self._say(f"the checkpoint of the best step, {ranked[0].step}, is not whole; looking among the others")
        if self.best is not None and state.is_world_process_zero:
            self._note_best()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Measure where it is time; a new best is saved."""
        every = self._settings.validate_every
        if every is None or (state.global_step % every and state.global_step < state.max_steps):
            return control
        begin = time.perf_counter()
        rows = losses(model, self._packs, self._settings.batch_packs, args.process_index, args.world_size)
        self._result = {"languages": rows, "macro": macro(rows)}
        control.should_log = True
        if self._settings.keep_best and (self.best is None or self._result["macro"] < self.best.macro):
            self.best = Best(state.global_step, self._result["macro"])
            control.should_save = True
        self.seconds = time.perf_counter() - begin
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Name the best step, now that its checkpoint is published."""
        if self.best is not None and self.best.step == state.global_step and state.is_world_process_zero:
            self._note_best()

    def _note_best(self) -> None:
        assert self.best is not None  # noqa: S101 - for the type checker
        write_json(self._root / checkpoint.BEST, self.best._asdict())

    def take(self) -> dict[str, Any]:
        """Return what a line of the log says of the last measurement, once."""
        result, self._result = self._result, None
        return {} if result is None else {"validation": result}

    def load_best(self, model: Any) -> dict[str, Any]:
        """Give a model the weights of the best step; returns facts for the manifest."""
        if self.best is None:
            return {}
        checkpoint.load_weights(checkpoint.folder_of(self._root, self.best.step), model)
        return {"best": self.best._asdict()}


@torch.no_grad()
def losses(model: Any, packs: Packs, batch_packs: int, process: int = 0, processes: int = 1) -> Any:
    """Return mean token loss and tokens per language, over all processes, each computing its share of the packs.

    The model is asked as it will be served: no dropout, no families, plain top-k.
    """
    sums, training = LanguageLoss(packs.languages), model.training
    model.eval()
    try:
        with torch.random.fork_rng():
            for batch in _batches(packs, batch_packs, process, processes):
                inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
                _add(sums, model, inputs)
    finally:
        model.train(training)
    return sums.take()


def _batches(packs: Packs, size: int, process: int, processes: int) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of a process; each gets as many, since sharded layers wait for each other."""
    for first in range(process * size, len(packs) + process * size, processes * size):
        numbers = range(first, min(first + size, len(packs)))
        batch = collate([packs[i] for i in numbers or range(1)])
        if not numbers:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        yield batch


def _add(sums: LanguageLoss, model: Any, inputs: dict[str, Tensor]) -> None:
    labels_BS = shifted(inputs["labels"])
    with head_gives_losses(model, labels_BS):
        outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False)
    languages_BS = F.pad(inputs["language_ids"][:, 1:], (0, 1), value=PADDING_LANGUAGE)
    sums.add(outputs.logits.flatten(), languages_BS.flatten(), (labels_BS != IGNORED).flatten())
