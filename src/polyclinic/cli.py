"""`polyclinic STAGE ACTION`: the command line. A stage is imported only when it is called."""

import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polyclinic.arguments import Once, Parser, folder, positive, rate
from polyclinic.errors import DiskError, PolyclinicError, UsageError

PROGRAM = "polyclinic"


def build_parser() -> Parser:
    """Return the whole grammar; nothing heavy is imported for it."""
    parser = Parser(
        prog=PROGRAM, description="Dense language models into multilingual medical mixtures of family experts."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    run = _command(commands, "run", cmd_run, "walk a recipe from raw text to report.html")
    _recipe_arguments(run)
    _out(run)
    check = _command(commands, "check", cmd_check, "read a recipe and print it resolved")
    _recipe_arguments(check)
    languages = _command(commands, "languages", cmd_languages, "show languages and the expert that serves them")
    languages.add_argument("codes", nargs="*", metavar="CODE", help="language codes; all of the preset when left out")
    languages.add_argument("--preset", action=Once, default="balanced", metavar="NAME", help="preset or families file")
    _stages(commands)
    return parser


def _stages(commands: Any) -> None:
    """Add the stages that stand alone."""
    corpus = _group(commands, "corpus", "raw text to clean shards and a data card")
    _recipe_arguments(built := _command(corpus, "build", cmd_corpus_build, "build the corpus of a recipe"))
    _out(built)
    inspect = _command(corpus, "inspect", cmd_corpus_inspect, "print the data card of a built corpus")
    inspect.add_argument("folder", type=Path, metavar="DIR")
    upcycle = _group(commands, "upcycle", "dense checkpoint to proven mixture")
    build = _command(upcycle, "build", cmd_upcycle_build, "build a mixture and prove it")
    build.add_argument("dense", metavar="DENSE", help="folder or hub id of a dense checkpoint")
    build.add_argument("out", type=folder, metavar="OUT")
    build.add_argument("--families", action=Once, default="balanced", metavar="NAME", help="preset or families file")
    build.add_argument("--last-layers", action=Once, type=positive, default=2, metavar="N")
    build.add_argument("--top-k", action=Once, type=positive, default=2, metavar="K")
    verify = _command(upcycle, "verify", cmd_upcycle_verify, "prove a mixture equal to its dense parent")
    verify.add_argument("dense", type=Path, metavar="DENSE")
    verify.add_argument("moe", type=Path, metavar="MOE")
    train = _group(commands, "train", "checkpoint and packs to trained checkpoint")
    loop = _command(train, "run", cmd_train_run, "train a mixture on a packed folder")
    loop.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    loop.add_argument("--packs", action=Once, type=Path, required=True, metavar="DIR", help="a packed step of a run")
    loop.add_argument("--steps", action=Once, type=positive, required=True, metavar="N")
    loop.add_argument("--lr", action=Once, type=rate, default=1e-3, metavar="RATE", help="peak learning rate")
    _out(loop)


def _group(commands: Any, name: str, what: str) -> Any:
    group = commands.add_parser(name, help=what, description=what)
    group.set_defaults(parser=group, action=None)
    return group.add_subparsers(dest="action", metavar="action", parser_class=Parser)


def _command(commands: Any, name: str, work: Callable[[Namespace], int], what: str) -> Parser:
    parser: Parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(work=work, parser=parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def _out(parser: Parser) -> None:
    parser.add_argument("--out", action=Once, type=folder, required=True, metavar="DIR", help="folder for what is made")


def _recipe_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key=value")


def _emit(arguments: Namespace, value: Any, lines: Sequence[str]) -> int:
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
    return _emit(
        arguments, value, summary.lines if summary.did else ["nothing to do: every step is finished", *summary.lines]
    )


def cmd_check(arguments: Namespace) -> int:
    """Validate a recipe and print it."""
    from polyclinic.journey import check
    from polyclinic.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    check(recipe)
    return _emit(arguments, recipe.model_dump(), [json.dumps(recipe.model_dump(), ensure_ascii=False, indent=1)])


def cmd_languages(arguments: Namespace) -> int:
    """Print languages with their family and expert."""
    from polyclinic.listing import lines, rows

    try:
        found = rows(arguments.preset, arguments.codes)
    except PolyclinicError as err:  # what was named stands on the command line
        raise UsageError(err.where, err.what, err.try_) from err
    return _emit(arguments, found, lines(arguments.preset, found))


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
    return _emit(arguments, {"card": str(card)}, [f"card     {card}"])


def cmd_corpus_inspect(arguments: Namespace) -> int:
    """Print a data card."""
    from polyclinic.errors import DataError
    from polyclinic.runs import read_json

    found = [p for p in (arguments.folder, arguments.folder / "corpus") if (p / "card.json").is_file()]
    if not found:
        raise DataError(arguments.folder, "holds no built corpus", "name a corpus or run folder")
    return _emit(arguments, read_json(found[0] / "card.json"), [(found[0] / "card.md").read_text("utf-8")])


def cmd_upcycle_build(arguments: Namespace) -> int:
    """Build a mixture from the command line."""
    from polyclinic.families import fifty
    from polyclinic.moe.checkpoint import resolve
    from polyclinic.recipe import UpcycleSection
    from polyclinic.runs import RunFolder, damaged
    from polyclinic.upcycle.build import build

    dense = resolve(arguments.dense)
    _not_inside(arguments.out, [str(dense)])
    section = UpcycleSection(families=arguments.families, last_layers=arguments.last_layers, top_k=arguments.top_k)
    if arguments.out.exists() and damaged(arguments.out) is None:
        raise UsageError(arguments.out, "holds a finished checkpoint", "choose another folder")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    key = {"dense": str(dense), "section": section.model_dump()}
    facts: dict[str, Any] = {}
    RunFolder(arguments.out.parent).step(
        arguments.out.name, key, lambda f: facts.update(build(dense, f, section, fifty(), 0)) or facts
    )
    return _emit(arguments, facts, [f"{k:<24} {v}" for k, v in facts.items()])


def cmd_upcycle_verify(arguments: Namespace) -> int:
    """Run both proofs again."""
    from polyclinic.moe.verify import verify

    facts = verify(arguments.dense, arguments.moe, 0)
    return _emit(arguments, facts, [f"{k:<24} {v:.3e}" for k, v in facts.items()])


def cmd_train_run(arguments: Namespace) -> int:
    """Train a mixture on a packed folder."""
    from polyclinic.console import ConsoleProgress
    from polyclinic.recipe import MoeTrainingSection
    from polyclinic.runs import RunFolder, sha256_file
    from polyclinic.train.run import train_mixture

    _not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.packs)])
    section = MoeTrainingSection(steps=arguments.steps, learning_rate=arguments.lr)
    progress = ConsoleProgress(sys.stderr)
    packs = {p.name: sha256_file(p) for p in sorted(arguments.packs.glob("packs*"))}
    key = {"train": section.model_dump(), "packs": packs, "checkpoint": str(arguments.checkpoint)}
    with RunFolder.open(arguments.out) as run:
        run.step("train", key, lambda f: train_mixture(section, arguments.checkpoint, arguments.packs, f, 0, progress))
    folder = arguments.out / "train"
    return _emit(arguments, {"checkpoint": str(folder)}, [f"checkpoint {folder}"])


def _not_inside(out: Path, inputs: Sequence[str | None]) -> None:
    """Refuse to write into a folder that is read from."""
    for name in inputs:
        if name is not None and out.resolve() == Path(name).resolve():
            raise UsageError("--out", f"'{out}' is also an input", "choose another folder")


def _dispatch(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.version:
        from polyclinic import __version__

        sys.stdout.write(f"{PROGRAM} {__version__}\n")
        return 0
    if getattr(arguments, "work", None) is None:
        parser = getattr(arguments, "parser", None)
        prog = parser.prog if parser else PROGRAM
        raise UsageError(prog, "a command is missing", f"see {prog} --help")
    return int(arguments.work(arguments))


def _terminated(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure is one line on stderr and an exit code."""
    # Waiting threads must sleep, not spin: on a busy machine spinning slows small models thirtyfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except PolyclinicError as err:
        return _fail(err)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        return 130
    except OSError as err:
        what = (err.strerror or type(err).__name__).lower()
        return _fail(DiskError(err.filename or PROGRAM, what, "check space and permissions, then run again"))
    except Exception as err:
        if os.environ.get("POLYCLINIC_DEBUG"):
            raise
        what = f"{type(err).__name__}: {str(err)[:200]}"
        return _fail(PolyclinicError(PROGRAM, what, "a fault of ours: POLYCLINIC_DEBUG=1 shows where"))


def _fail(err: PolyclinicError) -> int:
    sys.stderr.write(f"error: {err}\n")
    return err.exit_code


if __name__ == "__main__":
    sys.exit(main())
