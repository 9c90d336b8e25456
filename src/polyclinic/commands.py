"""What each command of the command line does: values in from the grammar, lines or JSON out."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyclinic.errors import DataError, PolyclinicError, UsageError


def emit(arguments: Namespace, value: Any, lines: Sequence[str]) -> int:
    """Print JSON or lines, as asked."""
    text = json.dumps(value, ensure_ascii=False, indent=1) if arguments.json else "\n".join(lines)
    sys.stdout.write(text + "\n")
    return 0


def cmd_run(arguments: Namespace) -> int:
    """Walk a recipe."""
    from polyclinic.console import ConsoleProgress
    from polyclinic.journey import run
    from polyclinic.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    _not_inside(arguments.out, [recipe.corpus.root, recipe.base.checkpoint, recipe.base.run])
    with ConsoleProgress(sys.stderr) as progress:
        summary = run(recipe, arguments.out, progress)
    value = {"report": str(summary.report), "did": summary.did}
    return emit(
        arguments, value, summary.lines if summary.did else ["nothing to do: every step is finished", *summary.lines]
    )


def cmd_check(arguments: Namespace) -> int:
    """Validate a recipe and print it."""
    from polyclinic.journey import check
    from polyclinic.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    check(recipe)
    return emit(arguments, recipe.model_dump(), [json.dumps(recipe.model_dump(), ensure_ascii=False, indent=1)])


def cmd_languages(arguments: Namespace) -> int:
    """Print languages with their family and expert."""
    from polyclinic.listing import lines, rows

    try:
        found = rows(arguments.preset, arguments.codes)
    except PolyclinicError as err:  # what was named stands on the command line
        raise UsageError(err.where, err.what, err.try_) from err
    return emit(arguments, found, lines(arguments.preset, found))


def cmd_corpus_build(arguments: Namespace) -> int:
    """Build the corpus of a recipe on its own."""
    from polyclinic.console import ConsoleProgress
    from polyclinic.corpus.build import build, plan, wanted_languages
    from polyclinic.recipe import load_recipe
    from polyclinic.runs import RunFolder

    recipe = load_recipe(arguments.recipe, arguments.set)
    _not_inside(arguments.out, [recipe.corpus.root])
    section, progress = recipe.corpus, ConsoleProgress(sys.stderr)
    inputs = [(i.name, i.sha256) for i in plan(section, [*section.texts, *section.exams])]
    key = {"corpus": section.model_dump(), "inputs": inputs, "languages": wanted_languages(section)}
    with RunFolder.open(arguments.out) as run:
        run.step("corpus", key, lambda folder: build(section, folder, progress))
    card = arguments.out / "corpus" / "card.md"
    return emit(arguments, {"card": str(card)}, [f"card     {card}"])


def cmd_corpus_inspect(arguments: Namespace) -> int:
    """Print a data card."""
    from polyclinic.runs import read_json

    corpus = built_corpus(arguments.folder)
    return emit(arguments, read_json(corpus / "card.json"), [(corpus / "card.md").read_text("utf-8")])


def cmd_upcycle_build(arguments: Namespace) -> int:
    """Build a mixture from the command line."""
    _not_inside(arguments.out, [arguments.dense])

    from polyclinic.families import fifty
    from polyclinic.moe.checkpoint import resolve
    from polyclinic.recipe import UpcycleSection
    from polyclinic.runs import RunFolder, damaged
    from polyclinic.upcycle.build import build

    dense = resolve(arguments.dense)
    section = UpcycleSection(families=arguments.families, last_layers=arguments.last_layers, top_k=arguments.top_k)
    if arguments.out.exists() and damaged(arguments.out) is None:
        raise UsageError(arguments.out, "holds a finished checkpoint", "choose another folder")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    key = {"dense": str(dense), "section": section.model_dump()}
    facts: dict[str, Any] = {}
    RunFolder(arguments.out.parent).step(
        arguments.out.name, key, lambda f: facts.update(build(dense, f, section, fifty(), 0)) or facts
    )
    return emit(arguments, facts, [f"{k:<24} {v}" for k, v in facts.items()])


def cmd_upcycle_verify(arguments: Namespace) -> int:
    """Run the proofs again."""
    from polyclinic.moe.verify import verify

    facts = verify(arguments.dense, arguments.moe, 0)
    return emit(arguments, facts, [f"{k:<24} {v:.3e}" for k, v in facts.items()])


def cmd_train_run(arguments: Namespace) -> int:
    """Train a mixture on a packed folder."""
    _not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.packs)])

    from polyclinic.console import ConsoleProgress
    from polyclinic.recipe import MoeTrainingSection
    from polyclinic.runs import RunFolder, sha256_file, weight_digests
    from polyclinic.train.run import train_mixture

    section = MoeTrainingSection(steps=arguments.steps, learning_rate=arguments.lr)
    progress = ConsoleProgress(sys.stderr)
    packs = {p.name: sha256_file(p) for p in sorted(arguments.packs.glob("packs*"))}
    key = {"train": section.model_dump(), "packs": packs, "checkpoint": weight_digests(arguments.checkpoint)}
    with RunFolder.open(arguments.out) as run:
        run.step("train", key, lambda f: train_mixture(section, arguments.checkpoint, arguments.packs, f, 0, progress))
    folder = arguments.out / "train"
    return emit(arguments, {"checkpoint": str(folder)}, [f"checkpoint {folder}"])


def _not_inside(out: Path, inputs: Sequence[str | None]) -> None:
    """Refuse to write into a folder that is read from."""
    for name in inputs:
        if name is not None and out.resolve() == Path(name).resolve():
            raise UsageError("--out", f"'{out}' is also an input", "choose another folder")


def cmd_analyse_run(arguments: Namespace) -> int:
    """Route the held-out text of a built corpus through a mixture."""
    _not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.corpus)])

    from polyclinic.analyse.run import run
    from polyclinic.console import ConsoleProgress
    from polyclinic.recipe import AnalyseSection
    from polyclinic.runs import RunFolder, read_json

    section, corpus = AnalyseSection(), built_corpus(arguments.corpus)
    key = {"analyse": section.model_dump(), **_digests(arguments.checkpoint, corpus)}
    documents, progress = _documents(corpus), ConsoleProgress(sys.stderr)
    with RunFolder.open(arguments.out) as folder:
        folder.step("analyse", key, lambda f: run(section, arguments.checkpoint, documents, f, 0, progress))
    result = read_json(arguments.out / "analyse" / "routing.json")
    lines = [
        f"layer {r['layer']}   information {r['corrected']:.3f} nats above chance (p {r['p_value']:.3f})"
        for r in result["layers"]
    ]
    return emit(arguments, result, lines)


def cmd_evaluate_run(arguments: Namespace) -> int:
    """Ask one checkpoint the exams of a built corpus, and measure its held-out loss."""
    _not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.corpus)])

    from polyclinic.console import ConsoleProgress
    from polyclinic.corpus.tables import read_rows
    from polyclinic.evaluate.run import run
    from polyclinic.recipe import EvaluateSection
    from polyclinic.records import Question
    from polyclinic.runs import RunFolder, read_json

    section, corpus = EvaluateSection(), built_corpus(arguments.corpus)
    key = {"evaluate": section.model_dump(), **_digests(arguments.checkpoint, corpus)}
    questions = [Question.from_row(row) for row in read_rows(corpus / "questions.parquet")]
    models, progress = {"model": arguments.checkpoint}, ConsoleProgress(sys.stderr)
    with RunFolder.open(arguments.out) as folder:
        folder.step("evaluate", key, lambda f: run(section, models, _documents(corpus), questions, f, progress))
    result = read_json(arguments.out / "evaluate" / "scores.json")
    lines = [
        f"{r['language']:<4} {r['exam']:<24} n {r['n']:>5}   {100 * r['accuracy']:5.1f} % "
        f"({100 * r['low']:.1f} to {100 * r['high']:.1f}), chance {100 * r['chance']:.1f}"
        for r in result["exams"]["model"]
    ]
    lines += [f"{code:<4} bits per byte {v['bits_per_byte']:.3f}" for code, v in result["loss"]["model"].items()]
    return emit(arguments, result, lines)


def built_corpus(folder: Path) -> Path:
    """Return the corpus folder a person names, directly or by its run; raises DataError."""
    for path in (folder, folder / "corpus"):
        if (path / "card.json").is_file():
            return path
    raise DataError(folder, "holds no built corpus", "name a corpus or run folder")


def _documents(corpus: Path) -> Any:
    from polyclinic.corpus.build import read_documents

    return read_documents(corpus)


def _digests(checkpoint: Path, corpus: Path) -> dict[str, str]:
    """Return digests of what a checkpoint and a corpus hold."""
    from polyclinic.runs import MANIFEST, sha256_file, weight_digests

    return {**weight_digests(checkpoint), "corpus": sha256_file(corpus / MANIFEST)}
