"""One training loop for base and mixture: transformers' Trainer with our data, routing and saves."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer

from polyclinic.corpus.pack import IGNORED
from polyclinic.moe import attach as routed
from polyclinic.runs import SCRATCH
from polyclinic.train import checkpoint
from polyclinic.train.packs import Packs, PackSampler, collate

CHECKPOINTS = f"{SCRATCH}/checkpoints"


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
            for code, (total, count) in zip(self._languages, self._sums.tolist(), strict=True)
            if count
        }
        self._sums.zero_()
        return out


class StrictTrainer(Trainer):
    """Trainer with per-language loss, a seedless order of packs, and strict checkpoints."""

    def __init__(self, packs: Packs, seed: int, language_loss: LanguageLoss, **kwargs: Any) -> None:
        super().__init__(train_dataset=packs, data_collator=collate, **kwargs)
        self._packs, self._seed, self._language_loss = packs, seed, language_loss
        self.model_accepts_loss_kwargs = False  # the loss below is a mean over the batch

    def _get_train_sampler(self, train_dataset: Any = None) -> PackSampler:
        draws = self.args.max_steps * self.args.train_batch_size * self.args.gradient_accumulation_steps
        return PackSampler(len(self._packs), draws, self._seed)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decay matrices only; norms, biases and other vectors are left alone."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean token loss of a batch; no mask is given, so restarting positions make it."""
        labels = inputs["labels"][:, 1:].flatten()
        routing = {"family_ids": inputs["family_ids"]} if routed.is_attached(self.model) else {}
        outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False, **routing)
        logits = outputs.logits[:, :-1].flatten(0, 1).float()
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        counted = labels != IGNORED
        self._language_loss.add(losses, inputs["language_ids"][:, 1:].flatten(), counted)
        loss = losses.sum() / counted.sum().clamp(min=1)
        return (loss, outputs) if return_outputs else loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        root = Path(str(self.args.output_dir)) / CHECKPOINTS
        state = json.dumps({**asdict(self.state), "log_history": []})
        checkpoint.save(root, self.state.global_step, self.model, self.optimizer, self.lr_scheduler, state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_optimizer(Path(checkpoint_folder), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_rng(Path(checkpoint_folder))

    def _load_scaler(self, checkpoint_folder: str | None) -> None:
        """Nothing to load: no scaler is used."""
