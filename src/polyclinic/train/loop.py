"""Run the loop: resume where a killed run stood, keep the log, end with a stock checkpoint."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from polyclinic.moe import attach as routed
from polyclinic.moe.attach import ALONE, Routing
from polyclinic.moe.balance import Balance, Loads
from polyclinic.progress import Progress
from polyclinic.recipe import MoeTrainingSection, TrainingSection
from polyclinic.train import adapters, checkpoint, parts
from polyclinic.train.metrics import LOG, Diary, ExpertLoads, LanguageLoss
from polyclinic.train.packs import Packs
from polyclinic.train.schedule import steps_of
from polyclinic.train.stop import check_space, memory_errors, stopping
from polyclinic.train.trainer import CHECKPOINTS, Balancing, StrictTrainer


def fit(
    model: PreTrainedModel,
    packs_folder: Path,
    settings: TrainingSection,
    folder: Path,
    seed: int,
    progress: Progress,
    expert: int | None = None,
) -> dict[str, Any]:
    """Train a model in place as long as the settings say; a mixture has its routing attached while it runs.

    `folder` keeps the log and the checkpoints; with checkpoints of a killed run inside, training
    goes on from the newest good one and ends with the same weights. With `expert` that one alone trains.
    """
    quiet()
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    packs = Packs(packs_folder)
    language_loss = LanguageLoss(packs.languages)
    steps = steps_of(settings, len(packs), packs.pack_tokens)
    step_tokens = settings.batch_packs * settings.accumulate * packs.pack_tokens
    mixture = settings if isinstance(settings, MoeTrainingSection) else None
    loads = ExpertLoads(list(routed.sparse_layers(model)) if mixture else [], packs.languages)
    diary = Diary(folder / LOG, language_loss, loads, step_tokens, progress)
    arguments = _arguments(settings, steps, folder, seed)
    resume = _resume_point(folder / CHECKPOINTS, progress)
    with (
        stopping(progress.say) as stop,
        memory_errors("train"),
        _attached(model, mixture, loads, len(packs.languages)) as balancing,
        parts.only(model, mixture, expert) as one_expert,
        adapters.adapted(model, mixture.lora if mixture else None, seed) as trainee,
    ):
        check_space(folder, model, settings.keep)
        values = {"model": trainee, "args": arguments, "callbacks": [diary, stop]}
        trainer = StrictTrainer(packs, settings, language_loss, balancing, one_expert, **values)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return {"steps": steps, "tokens": steps * step_tokens, "resumed": bool(resume)}


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
    strengths = (settings.load_balance / settings.accumulate, settings.z_loss / settings.accumulate)
    balance = Balance(*strengths, loads=Loads(num_languages))
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
        routed.detach(model)


def _resume_point(root: Path, progress: Progress) -> Path | None:
    """Return the newest good checkpoint, saying which damaged ones were passed over."""
    newest, bad = checkpoint.latest(root)
    for path in bad:
        progress.say(f"checkpoint {path.name} is damaged, falling back")
    if newest:
        progress.say(f"resuming from {newest.name}")
    return newest


def _arguments(settings: TrainingSection, steps: int, folder: Path, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_packs,
        gradient_accumulation_steps=settings.accumulate,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=settings.precision == "bf16",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )


def quiet() -> None:
    """Keep the libraries' own progress and advice off the screen; ours says what matters."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
