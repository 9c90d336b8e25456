"""What each command of the command line does: values in from the grammar, lines or JSON out."""

import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from polyclinic.errors import DataError, PolyclinicError, RecipeError, UsageError


def emit(arguments: Namespace, value: Any, lines: Sequence[str]) -> int:
    """Print JSON or lines, as asked."""
    text = json.dumps(value, ensure_ascii=False, indent=1) if arguments.json else "\n".join(lines)
    sys.stdout.write(text + "\n")
    return 0


def cmd_run(arguments: Namespace) -> int:
    """Walk a recipe."""
    from polyclinic.console import ConsoleProgress
    from polyclinic.journey import run
    from polyclinic.options import read_recipe

    recipe = read_recipe(arguments.recipe, arguments.set)
    if arguments.dry_run:
        return _dry_run(arguments, recipe)
    if arguments.out is None:
        raise UsageError("polyclinic run", "--out is missing", "name a folder, or add --dry-run")
    not_inside(arguments.out, [recipe.corpus.root, recipe.base.checkpoint, recipe.base.run])
    with company() as leads:
        if not leads:
            return 0
        with ConsoleProgress(sys.stderr) as progress:
            summary = run(recipe, arguments.out, progress)
    value = {"report": str(summary.report), "did": summary.did}
    return emit(
        arguments, value, summary.lines if summary.did else ["nothing to do: every step is finished", *summary.lines]
    )


@contextmanager
def company() -> Iterator[bool]:
    """Join the processes that torchrun started; gives whether this one leads, after the others have followed."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield True
        return
    from polyclinic.train.distributed import company
    from polyclinic.train.run import follow

    with company() as leads:
        if not leads:
            follow()
        yield leads


def _dry_run(arguments: Namespace, recipe: Any) -> int:
    """Check a recipe and print the mixture its run would build."""
    from polyclinic.journey import check
    from polyclinic.runs import finished_base

    check(recipe)
    base = recipe.base
    if recipe.baseline == "dense":
        return emit(arguments, {"baseline": "dense"}, ["baseline  dense: no mixture is built"])
    if base.from_scratch is None:
        return _forecast(arguments, base.checkpoint or str(finished_base(base.run)), recipe.upcycle, recipe.seed)
    from polyclinic.train.base import scratch_config
    from polyclinic.upcycle.forecast import forecast, lines

    raw = scratch_config(base.from_scratch, base.from_scratch.vocab_size, recipe.corpus.pack_tokens).to_dict()
    facts = forecast(raw, arguments.recipe, recipe.upcycle, recipe.seed)
    return emit(arguments, facts, lines(facts, "a base trained by this recipe"))


def cmd_check(arguments: Namespace) -> int:
    """Validate a recipe and print it."""
    from polyclinic.journey import check
    from polyclinic.options import read_recipe

    recipe = read_recipe(arguments.recipe, arguments.set)
    check(recipe)
    return emit(arguments, recipe.model_dump(), [json.dumps(recipe.model_dump(), ensure_ascii=False, indent=1)])


def cmd_languages(arguments: Namespace) -> int:
    """Print languages with their family and expert, and what each expert carries of a corpus."""
    from polyclinic import listing
    from polyclinic.families import load_preset
    from polyclinic.languages import language

    _check_languages(arguments)
    try:
        asked = load_preset(arguments.preset)
        codes = [language(code).code for code in arguments.codes]
    except PolyclinicError as err:  # what was named stands on the command line
        raise UsageError(err.where, err.what, err.try_) from err
    if arguments.corpus is None:
        found = listing.rows(asked, codes)
        return emit(arguments, found, listing.lines(asked, found))
    from polyclinic.corpus.card.amounts import amounts

    text = listing.Text(*amounts(arguments.corpus))
    preset = _recomputed(text, asked, arguments) if arguments.recompute else asked
    found, burden = listing.rows(preset, codes, text), listing.burden(preset, text, asked)
    shown = [*listing.lines(preset, found), "", *listing.burden_lines(preset, burden)]
    return emit(arguments, {"languages": found, **burden}, shown)


def _check_languages(arguments: Namespace) -> None:
    """Refuse an option that means nothing without another, and a file that would be lost."""
    for option, given, other, there in (
        ("--recompute", arguments.recompute, "--corpus", arguments.corpus),
        ("--experts", arguments.experts, "--recompute", arguments.recompute),
        ("--save", arguments.save, "--recompute", arguments.recompute),
    ):
        if given and not there:
            raise UsageError(option, f"means nothing without {other}", f"add {other}")
    if arguments.save and (arguments.save.exists() or arguments.save.is_symlink()):
        raise UsageError(arguments.save, "is there already", "choose another name for --save")


def _recomputed(text: Any, asked: Any, arguments: Namespace) -> Any:
    """Return families made for a text, written to a file if asked."""
    from polyclinic.families import as_yaml
    from polyclinic.listing import RECOMPUTED, recomputed
    from polyclinic.runs import write_bytes

    name = arguments.save.stem if arguments.save else RECOMPUTED
    try:
        preset = recomputed(text, arguments.experts or asked.num_experts, name)
    except RecipeError as err:
        raise UsageError("--experts", f"{err.what} with text", err.try_) from err
    if arguments.save:
        write_bytes(arguments.save, as_yaml(preset).encode())
    return preset


def cmd_upcycle_build(arguments: Namespace) -> int:
    """Build a mixture from the command line, or say what would be built."""
    from polyclinic.options import upcycle_choices
    from polyclinic.upcycle.plan import check_routing

    base, section, routing, seed, named = upcycle_choices(arguments)
    check_routing(section, routing)
    if arguments.dry_run:
        return _forecast(arguments, base, section, seed)
    if arguments.out is None:
        raise UsageError("polyclinic upcycle build", "OUT is missing", "name a folder, or add --dry-run")
    _check_new(arguments.out, base)

    from polyclinic.families import fifty, load_preset
    from polyclinic.moe.checkpoint import resolve
    from polyclinic.upcycle.build import build

    listed = [code for family in load_preset(section.families).families for code in family.languages]
    languages = {*fifty(), *named, *listed}
    dense, texts = resolve(base), _starter_texts() if section.router_init == "centroid" else None
    key = {"dense": str(dense), "section": section.model_dump(), "seed": seed}
    return _publish(arguments, key, lambda folder: build(dense, folder, section, languages, seed, texts))


def cmd_upcycle_import(arguments: Namespace) -> int:
    """Read a published Apollo-MoE into the native form."""
    _check_new(arguments.out, arguments.checkpoint)

    from polyclinic.moe.checkpoint import resolve
    from polyclinic.upcycle.import_apollo import import_apollo

    source = resolve(arguments.checkpoint)
    key = {"published": str(source), "families": arguments.families}
    return _publish(arguments, key, lambda folder: import_apollo(source, folder, arguments.families))


def _publish(arguments: Namespace, key: dict[str, Any], work: Callable[[Path], dict[str, Any]]) -> int:
    """Make a checkpoint folder in one step, under a lock, and print its facts; a failure leaves nothing."""
    from polyclinic.runs import RunFolder

    out: Path = arguments.out
    facts: dict[str, Any] = {}

    def made(folder: Path) -> dict[str, Any]:
        facts.update(work(folder))
        _refuse_there(out)  # a step of a run may be done again; what a person named is never replaced
        return facts

    lock, left = out.parent / f".{out.name}.lock", out.parent / f".work-{out.name}"
    with _nothing_left(out), RunFolder.open(out.parent, lock.name) as parent:
        try:
            _refuse_there(out)
            shutil.rmtree(left, ignore_errors=True)  # of a killed command, whose parent may have changed since
            parent.step(out.name, key, made)
        except PolyclinicError as err:  # by the name a person gave, not by that of the folder it is made in
            where, what = (text.replace(str(left), str(out)) for text in (err.where, err.what))
            raise type(err)(where, what, err.try_) from err
        finally:
            shutil.rmtree(left, ignore_errors=True)
            lock.unlink(missing_ok=True)
    return emit(arguments, facts, [f"{k:<24} {_shown(v)}" for k, v in facts.items()])


def _refuse_there(out: Path) -> None:
    if os.path.lexists(out):
        raise UsageError(out, "is there already", "choose another folder")


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Take away the empty folders that were made above a folder which did not come to be."""
    new = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    try:
        yield
    finally:
        if not os.path.lexists(out):
            with suppress(OSError):
                for folder in new:
                    folder.rmdir()


def _shown(value: Any) -> str:
    return f"{value:.3e}" if isinstance(value, float) else str(value)


def _forecast(arguments: Namespace, base: str, section: Any, seed: int) -> int:
    """Print what would be built from a base named by folder or hub id."""
    from polyclinic.upcycle.forecast import config_of, forecast, lines

    raw, source = config_of(base)
    facts = forecast(raw, base, section, seed)
    return emit(arguments, facts, lines(facts, source))


def _starter_texts() -> dict[str, list[str]]:
    """Return the starter corpus by language."""
    from polyclinic.corpus.starter import documents

    texts: dict[str, list[str]] = {}
    for document in documents():
        if document.split == "train":
            texts.setdefault(document.language, []).append(document.text())
    return texts


def cmd_upcycle_verify(arguments: Namespace) -> int:
    """Run the proofs again."""
    from polyclinic.moe.verify import verify

    facts = verify(arguments.dense, arguments.moe, 0)
    return emit(arguments, facts, [f"{k:<24} {_shown(v)}" for k, v in facts.items()])


def not_inside(out: Path, inputs: Sequence[str | None]) -> None:
    """Refuse to write into a folder that is read from."""
    for name in inputs:
        if name is not None and os.path.realpath(out) == os.path.realpath(name):
            raise UsageError(out, "is also an input", "choose another folder")


def _check_new(out: Path, source: str) -> None:
    """Refuse a folder that is there already, or that would lie inside the one it is made from."""
    not_inside(out, [source])
    _refuse_there(out)
    if Path(source).is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):
        raise UsageError(out, f"lies inside {source}, which is an input", "choose a folder beside it")


def built_corpus(folder: Path) -> Path:
    """Return the corpus folder a person names, directly or by its run; raises DataError."""
    for path in (folder, folder / "corpus"):
        if (path / "card.json").is_file():
            return path
    raise DataError(folder, "holds no built corpus", "name a corpus or run folder")
