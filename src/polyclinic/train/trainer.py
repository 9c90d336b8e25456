"""One training loop for base and mixture: transformers' Trainer with our data, routing and saves."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback

from polyclinic.corpus.pack.pack import IGNORED, PADDING_LANGUAGE
from polyclinic.errors import PolyclinicError
from polyclinic.moe import attach as routed
from polyclinic.moe.balance import Balance, grows, next_bias, remaining
from polyclinic.recipe import TrainingSection
from polyclinic.runs import CHECKPOINTS
from polyclinic.train import checkpoint, distributed
from polyclinic.train.loss import head_gives_losses, shifted
from polyclinic.train.metrics import ExpertLoads, LanguageLoss
from polyclinic.train.packs import Packs, PackSampler, collate
from polyclinic.train.parts import OneExpert
from polyclinic.train.schedule import share_of_peak


class Balancing(TrainerCallback):
    """After each step, counts the picks and moves the bias; the bias has faded before the end."""

    def __init__(self, balance: Balance, rate: float, loads: ExpertLoads) -> None:
        self._balance, self._rate, self._loads = balance, rate, loads
        self.bias_LE: Tensor | None = None  # as learned; what is left of it is in `balance`

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let the bias of a resumed run count as it did."""
        self._apply(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, and learn the bias while it grows."""
        loads_LGE = self._balance.loads.take()
        self._loads.add(loads_LGE)
        if self._rate and grows(state.global_step, state.max_steps):
            loads_LE = loads_LGE.sum(1)
            before = torch.zeros(loads_LE.shape) if self.bias_LE is None else self.bias_LE
            self.bias_LE = next_bias(before, loads_LE, self._rate)
        self._apply(state.global_step, state.max_steps)

    def _apply(self, step: int, steps: int) -> None:
        share = remaining(step, steps)
        self._balance.bias_LE = share * self.bias_LE if share and self.bias_LE is not None else None


class StrictTrainer(Trainer):
    """Trainer with per-language loss, a seedless order of packs, and strict checkpoints."""

    def __init__(
        self,
        packs: Packs,
        settings: TrainingSection,
        language_loss: LanguageLoss,
        balancing: Balancing | None = None,
        one_expert: OneExpert | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=packs, data_collator=collate, **kwargs)
        self._packs, self._settings, self._language_loss, self._balancing = packs, settings, language_loss, balancing
        self._one_expert = one_expert
        for callback in (balancing, one_expert):
            if callback is not None:
                self.add_callback(callback)
        self._spoilt: list[Any] = []  # losses that are no finite numbers, and their packs
        self.model_accepts_loss_kwargs = True  # the loss below is divided by the tokens of the whole step

    def _get_train_sampler(self, train_dataset: Any = None) -> PackSampler:
        draws = self.args.max_steps * self._settings.batch_packs * self._settings.accumulate
        return PackSampler(len(self._packs), draws, self.args.seed, self._packs.ordered)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Make the schedule of the recipe."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share_of_peak(self._settings, num_training_steps))
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decay matrices only, none where one expert trains: it decays its own rows."""
        if self._one_expert is not None:
            return []
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean token loss; no mask is given, so restarting positions make it.

        The mean is over all tokens of a step that carry loss, over its batches and processes
        (`num_items_in_batch`), or over those of this batch. A loss that is no finite number is noted,
        with the packs it came from, and ends the training before its step.
        """
        labels_BS = shifted(inputs["labels"])
        attached = routed.is_attached(self.model)
        routing = {"family_ids": inputs["family_ids"], "group_ids": inputs["language_ids"]} if attached else {}
        with head_gives_losses(self.model, labels_BS):
            outputs = model(
                input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False, **routing
            )
        losses_BS, counted_BS = outputs.logits, labels_BS != IGNORED
        languages_BS = F.pad(inputs["language_ids"][:, 1:], (0, 1), value=PADDING_LANGUAGE)
        self._language_loss.add(losses_BS.flatten(), languages_BS.flatten(), counted_BS.flatten())
        count = counted_BS.sum() if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        loss = losses_BS.sum() / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
        if not loss.isfinite():
            self._spoilt.append([loss.item(), inputs["pack"].tolist()])
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self._one_expert is not None:
            self._one_expert.mask()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of the gradients; stop before a step that would spoil the weights."""
        norm = float(distributed.whole(torch.as_tensor(super()._get_grad_norm(model, grad_norm))))
        spoilt = [each for process in distributed.gather(self._spoilt) for each in process]
        step = self.state.global_step + 1
        if spoilt:
            records = self._packs.records({pack for _, packs in spoilt for pack in packs})
            shown = ", ".join(records[:5]) + (f" and {len(records) - 5} more" if len(records) > 5 else "")  # noqa: PLR2004
            what = f"the loss at step {step} is {spoilt[0][0]}, in a batch of records {shown}"
            distributed.agree(
                PolyclinicError("train", what, "look at these records, or lower learning_rate, and run again")
            )
        if not math.isfinite(norm):
            what = f"the norm of the gradients at step {step} is {norm}"
            distributed.agree(PolyclinicError("train", what, "lower learning_rate or look at the data, and run again"))
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        root = Path(str(self.args.output_dir)) / CHECKPOINTS
        state = json.dumps({**asdict(self.state), "log_history": []})
        bias = None if self._balancing is None else self._balancing.bias_LE
        parts = (self.model, self.optimizer, self.lr_scheduler)
        checkpoint.save(root, self.state.global_step, *parts, state, bias, keep=self._settings.keep)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load_weights(Path(resume_from_checkpoint), self.model)
        if self._balancing is not None:
            self._balancing.bias_LE = checkpoint.load_bias(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_optimizer(Path(checkpoint_folder), self.model, self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_generators(Path(checkpoint_folder), self.args.seed)

    def _load_scaler(self, checkpoint_folder: str | None) -> None:
        """Nothing to load: no scaler is used."""
