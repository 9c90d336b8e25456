"""The commands that train, and that say beforehand what it takes."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from polyclinic.commands import company, emit, not_inside
from polyclinic.errors import CheckpointError


def cmd_train_run(arguments: Namespace) -> int:
    """Train a mixture on a packed folder."""
    not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.packs)])

    from polyclinic.console import ConsoleProgress
    from polyclinic.runs import RunFolder, sha256_file, weight_digests
    from polyclinic.train.run import train_mixture

    section, seed = _training(arguments)
    with company() as leads:
        if not leads:
            return 0
        progress = ConsoleProgress(sys.stderr)
        _check_sealed(arguments.checkpoint, arguments.packs)
        packs = {p.name: sha256_file(p) for p in sorted(arguments.packs.glob("pack*"))}
        key = {"train": section.model_dump(), "packs": packs, "checkpoint": weight_digests(arguments.checkpoint)}
        paths = (arguments.checkpoint, arguments.packs)
        with RunFolder.open(arguments.out) as run:
            run.step("train", {**key, "seed": seed}, lambda f: train_mixture(section, *paths, f, seed, progress))
    folder = arguments.out / "train"
    return emit(arguments, {"checkpoint": str(folder)}, [f"checkpoint {folder}"])


def _training(arguments: Namespace) -> tuple[Any, int]:
    """Return the train section and seed of a recipe, or the defaults, with options over it."""
    from polyclinic.options import read_recipe
    from polyclinic.recipe import MoeTrainingSection, override, section_of

    values: dict[str, Any] = {}
    seed = 0
    if arguments.recipe:
        recipe = read_recipe(arguments.recipe)
        values, seed = recipe.train.model_dump(exclude_unset=True), recipe.seed
    for assignment in arguments.set:
        override(values, assignment)
    if arguments.steps:
        values = {k: v for k, v in values.items() if k not in ("tokens", "epochs")} | {"steps": arguments.steps}
    if arguments.lr:
        values["learning_rate"] = arguments.lr
    return section_of(MoeTrainingSection, values, arguments.recipe or "polyclinic train run"), seed


def _check_sealed(*folders: Path) -> None:
    """Refuse a folder that some step sealed and that is not what it was."""
    from polyclinic.runs import MANIFEST, damaged

    for folder in folders:
        if (folder / MANIFEST).is_file() and (name := damaged(folder)) is not None:
            raise CheckpointError(folder, f"{name} is not what its manifest says", "make the folder again")


def cmd_train_plan(arguments: Namespace) -> int:
    """Print what training the mixture of a recipe takes; nothing is loaded, nothing written."""
    from polyclinic.moe.blueprint import dense_config
    from polyclinic.options import read_recipe
    from polyclinic.runs import finished_base
    from polyclinic.train.base import scratch_config
    from polyclinic.train.memory import shape_of
    from polyclinic.train.plan import Hardware, lengthened, plan
    from polyclinic.train.plan_lines import as_json, lines
    from polyclinic.upcycle.forecast import config_of, forecast
    from polyclinic.upcycle.plan import check_routing

    recipe = read_recipe(arguments.recipe, arguments.set)
    check_routing(recipe.upcycle, recipe.train.routing)
    base, pack_tokens = recipe.base, recipe.corpus.pack_tokens
    if base.from_scratch is None:
        where = base.checkpoint or str(finished_base(str(base.run)))
        raw, source = config_of(where)
    else:
        where, source = str(arguments.recipe), "a base trained by this recipe"
        raw = scratch_config(base.from_scratch, base.from_scratch.vocab_size, pack_tokens).to_dict()
    shape = shape_of(dense_config(raw, where), forecast(raw, where, recipe.upcycle), recipe.upcycle)
    settings = recipe.train if arguments.tokens is None else lengthened(recipe.train, arguments.tokens)
    hardware = Hardware(tuple(arguments.gpus), arguments.gpu_memory, arguments.tflops, arguments.mfu)
    made = plan(shape, settings, pack_tokens, hardware)
    return emit(arguments, as_json(made, source), lines(made, source))
