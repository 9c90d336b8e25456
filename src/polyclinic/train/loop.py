"""Run the loop: resume where a killed run stood, keep the log, end with a stock checkpoint."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from polyclinic.errors import DataError, DiskError
from polyclinic.moe import attach as routed
from polyclinic.moe.attach import ALONE, Routing
from polyclinic.moe.balance import Balance, Loads
from polyclinic.progress import Progress
from polyclinic.recipe import MoeTrainingSection, TrainingSection
from polyclinic.runs import CHECKPOINTS
from polyclinic.train import adapters, checkpoint, distributed, parts
from polyclinic.train.diary import LOG, Diary
from polyclinic.train.metrics import ExpertLoads, Families, LanguageLoss
from polyclinic.train.packs import Packs
from polyclinic.train.reporters import check_reporters, reporting
from polyclinic.train.schedule import steps_of
from polyclinic.train.speed import Speedometer
from polyclinic.train.stop import check_space, memory_errors, stopping
from polyclinic.train.trainer import Balancing, StrictTrainer
from polyclinic.train.validate import Validation


class _Due(TrainerCallback):
    """Asks for a checkpoint every so many steps, and behind the last."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask where it is time."""
        control.should_save |= state.global_step % self._every == 0 or state.global_step == state.max_steps
        return control


def fit(
    model: PreTrainedModel,
    packs_folder: Path,
    settings: TrainingSection,
    folder: Path,
    seed: int,
    progress: Progress,
    expert: int | None = None,
    *,
    names: Sequence[str] = (),
    validation: Path | None = None,
) -> dict[str, Any]:
    """Train a model in place as long as the settings say; a mixture has its routing attached while it runs.

    `folder` keeps the log and the checkpoints; with checkpoints of a killed run inside, training
    goes on from the newest good one and ends with the same weights. With `expert` that one alone
    trains. `names` are those of the families by expert, for who watches; `validation` holds the
    packs that `validate_every` is for.
    """
    quiet()
    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 1) // distributed.size()))
    packs = Packs(packs_folder)
    language_loss = LanguageLoss(packs.languages)
    steps = steps_of(settings, len(packs), packs.pack_tokens)
    step_tokens = settings.batch_packs * settings.accumulate * packs.pack_tokens
    mixture = settings if isinstance(settings, MoeTrainingSection) else None
    experts = [packs.expert_of[code] for code in packs.languages]
    loads = ExpertLoads(list(routed.sparse_layers(model)) if mixture else [], packs.languages, experts)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    speed = Speedometer(model, packs.pack_tokens, step_tokens, dtype)
    check_reporters(settings.report_to)
    arguments = _arguments(settings, steps, folder, seed)
    resume = distributed.gather(_resume_point(folder / CHECKPOINTS, progress) if distributed.leads() else None)[0]
    validating = _validation(validation, settings, folder, progress)
    with (
        stopping(progress.say) as stop,
        memory_errors("train"),
        _attached(model, mixture, loads, len(packs.languages)) as balancing,
        parts.only(model, mixture, expert) as one_expert,
        adapters.adapted(model, mixture.lora if mixture else None, seed) as trainee,
        reporting(
            settings.report_to if distributed.leads() else (), folder, Path(resume) if resume else None
        ) as report,
    ):
        distributed.agree(_want_of_space(folder, model, settings.keep + settings.keep_best))
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if settings.parallel != "ddp" and distributed.size() > 1:
            distributed.spread(model, by_expert=settings.parallel == "experts")
        families = Families(packs.expert_of, names)
        diary = Diary(folder / LOG, families, language_loss, loads, speed, progress, report, validating)
        watching = [_Due(settings.save_every), *([validating] if validating else []), stop, diary]
        values = {"model": trainee, "args": arguments, "callbacks": watching}
        trainer = StrictTrainer(packs, settings, language_loss, balancing, one_expert, **values)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=resume)
        if settings.gradient_checkpointing:
            model.activation_checkpointing_disable()
        best = validating.load_best(trainee) if validating and settings.keep_best else {}
    return {"steps": steps, "tokens": steps * step_tokens, "resumed": bool(resume), **best}


def _validation(packs: Path | None, settings: TrainingSection, folder: Path, progress: Progress) -> Validation | None:
    """Return what measures the held-out loss, where the settings ask for it."""
    if settings.validate_every is None:
        return None
    if packs is None:
        raise DataError("train", "validate_every is set and no validation text given", "set corpus.validation")
    return Validation(Packs(packs), settings, folder, progress.say)


@contextmanager
def _attached(
    model: PreTrainedModel, settings: MoeTrainingSection | None, loads: ExpertLoads, num_languages: int
) -> Iterator[Balancing | None]:
    """Attach the routing for the length of a training; routers that it asks nothing are not trained."""
    if settings is None:
        yield None
        return
    routing = Routing(settings.routing)
    # Each batch of a step adds its gradient of these losses whole; the step wants their mean.
    batches = distributed.shared_out(settings.accumulate)
    strengths = (settings.load_balance / batches, settings.z_loss / batches)
    balance = Balance(*strengths, loads=Loads(num_languages), routers=loads.routers)
    routed.attach(model, routing, balance)
    routers = [r for layer in routed.sparse_layers(model).values() for r in routed.routers_of(layer)]
    trained = [router.weight.requires_grad for router in routers]
    for router, before in zip(routers, trained, strict=True):
        router.weight.requires_grad_(before and routing not in ALONE)
    try:
        yield Balancing(balance, settings.bias_balance, loads)
    finally:
        for router, before in zip(routers, trained, strict=True):
            router.weight.requires_grad_(before)
        if not distributed.is_spread(model):  # a sharded model is saved as it is and gone
            routed.detach(model)


def _want_of_space(folder: Path, model: PreTrainedModel, keep: int) -> DiskError | None:
    try:
        check_space(folder, model, keep)
    except DiskError as err:
        return err
    return None


def _resume_point(root: Path, progress: Progress) -> str | None:
    """Return the newest good checkpoint, saying which damaged ones were passed over."""
    checkpoint.tidy(root)
    newest, bad = checkpoint.latest(root)
    for path in bad:
        progress.say(f"checkpoint {path.name} is damaged, falling back")
    if newest:
        progress.say(f"resuming from {newest.name}")
    return str(newest) if newest else None


def _arguments(settings: TrainingSection, steps: int, folder: Path, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_packs,
        gradient_accumulation_steps=distributed.shared_out(settings.accumulate),
        bf16=settings.precision == "bf16",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",  # ours is `_Due`: the stock one refuses a sharded model
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,  # experts are fused: an idle one has gradients of zero
        use_cpu=not torch.cuda.is_available(),
    )


def quiet() -> None:
    """Keep the libraries' own progress and advice off the screen; ours says what matters."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
