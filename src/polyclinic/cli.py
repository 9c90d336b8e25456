"""`polyclinic STAGE ACTION`: the command line. A stage is imported only when it is called."""

import os
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polyclinic import commands, commands_analyse, commands_corpus, commands_evaluate, commands_train
from polyclinic.arguments import (
    Once,
    Parser,
    codes,
    counts,
    folder,
    indices,
    positive,
    rate,
    seed,
    share,
    whole,
    word,
)
from polyclinic.errors import DiskError, MissingDependencyError, PolyclinicError, RecipeError, UsageError

PROGRAM = "polyclinic"
# How libraries in Rust (safetensors, tokenizers) tell what the system refused.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def build_parser() -> Parser:
    """Return the whole grammar; nothing heavy is imported for it."""
    parser = Parser(
        prog=PROGRAM, description="Dense language models into multilingual medical mixtures of family experts."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    groups = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    run = _command(groups, "run", commands.cmd_run, "walk a recipe from raw text to report.html")
    _recipe_arguments(run)
    run.add_argument("--out", action=Once, type=folder, metavar="DIR", help="folder for what is made")
    run.add_argument("--dry-run", action="store_true", help="check the recipe and print the mixture it would build")
    check = _command(groups, "check", commands.cmd_check, "read a recipe and print it resolved")
    _recipe_arguments(check)
    languages = _command(groups, "languages", commands.cmd_languages, "show languages and the expert that serves them")
    languages.add_argument("codes", nargs="*", metavar="CODE", help="language codes; all of the preset when left out")
    languages.add_argument("--preset", action=Once, default="balanced", metavar="NAME", help="preset or families file")
    languages.add_argument("--corpus", action=Once, type=folder, metavar="DIR", help="a run or built corpus to count")
    languages.add_argument("--recompute", action="store_true", help="families as even as can be for that corpus")
    languages.add_argument("--experts", action=Once, type=positive, metavar="E", help="of the preset when left out")
    languages.add_argument("--save", action=Once, type=folder, metavar="FILE", help="write them as a families file")
    _stages(groups)
    return parser


def _stages(groups: Any) -> None:
    """Add the stages that stand alone."""
    corpus = _group(groups, "corpus", "raw text to clean shards and a data card")
    _corpus(corpus)
    upcycle = _group(groups, "upcycle", "dense checkpoint to proven mixture")
    _upcycle_build(_command(upcycle, "build", commands.cmd_upcycle_build, "build a mixture and prove it"))
    verify = _command(upcycle, "verify", commands.cmd_upcycle_verify, "prove a mixture equal to its dense parent")
    verify.add_argument("dense", type=Path, metavar="DENSE")
    verify.add_argument("moe", type=Path, metavar="MOE")
    what = "make a published Apollo-MoE a stock mixture"
    adopt = _command(upcycle, "import-apollo", commands.cmd_upcycle_import, what)
    adopt.add_argument("checkpoint", type=word, metavar="CKPT", help="folder or hub id; its code is never run")
    adopt.add_argument("out", type=folder, metavar="OUT", help="folder that does not exist yet")
    what = "preset or families file; by number of experts"
    adopt.add_argument("--families", action=Once, type=word, metavar="NAME", help=what)
    train = _group(groups, "train", "checkpoint and packs to trained checkpoint")
    loop = _command(train, "run", commands_train.cmd_train_run, "train a mixture on a packed folder")
    loop.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    loop.add_argument("--packs", action=Once, type=Path, required=True, metavar="DIR", help="a packed step of a run")
    loop.add_argument("--recipe", action=Once, type=Path, metavar="RECIPE", help="take its train section and seed")
    loop.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a key of the train section")
    loop.add_argument("--steps", action=Once, type=positive, metavar="N", help="in place of the recipe's length")
    loop.add_argument("--lr", action=Once, type=rate, metavar="RATE", help="peak learning rate")
    _out(loop)
    what = "memory, steps and hours that the training of a recipe takes"
    _train_plan(_command(train, "plan", commands_train.cmd_train_plan, what))
    group = _group(groups, "analyse", "checkpoint and text to who serves whom")
    what = "route text through a mixture and count"
    _analyse_run(_command(group, "run", commands_analyse.cmd_analyse_run, what))
    what = "two analyses of the same text side by side"
    alone = _command(group, "compare", commands_analyse.cmd_analyse_compare, what)
    for name in ("a", "b"):
        alone.add_argument(name, type=folder, metavar=name.upper(), help="what analyse run wrote")
    _out(alone)
    what = "where languages part in a dense model, and so where to place experts"
    _depth(_command(group, "depth", commands_analyse.cmd_analyse_depth, what))
    group = _group(groups, "evaluate", "a model and exams to scores per language")
    what = "ask a checkpoint or a server exams, and say what the scores are worth"
    _evaluate(_command(group, "run", commands_evaluate.cmd_evaluate_run, what))
    _difficulty(_command(group, "difficulty", commands_evaluate.cmd_evaluate_difficulty, "how hard each document is"))
    what = "two models on the same questions, language by language"
    _compare(_command(group, "compare", commands_evaluate.cmd_evaluate_compare, what))
    what = "the exams, what each takes to be run, and languages without one"
    exams = _command(group, "list", commands_evaluate.cmd_evaluate_list, what)
    exams.add_argument("--languages", action=Once, type=codes, metavar="CODE,CODE", help="only exams in these")
    what = "print the folder of the exams as lm-eval tasks, for its --include_path"
    _command(group, "tasks-path", commands_evaluate.cmd_evaluate_tasks_path, what)


def _evaluate(alone: Parser) -> None:
    """Add what `evaluate run` takes."""
    what = "a checkpoint folder, a hub id, or the address of a server such as http://localhost:8000/v1"
    alone.add_argument("model", type=word, metavar="MODEL", help=what)
    what = "exams of the suite: all-local, paper, all, an exam, or EXAM_LANGUAGE; see evaluate list"
    alone.add_argument("--tasks", nargs="+", type=word, metavar="NAME", help=what)
    alone.add_argument("--corpus", action=Once, type=Path, metavar="DIR", help="a built corpus or run: its exams, too")
    alone.add_argument("--languages", action=Once, type=codes, metavar="CODE,CODE", help="of the suite, only these")
    what = "letter, option, generate, chain, paper; several may be named (option)"
    alone.add_argument("--protocol", nargs="+", type=word, metavar="NAME", help=what)
    what = "of a mixture: stock, hybrid (told the language of each question) or both (both)"
    alone.add_argument("--routing", action=Once, choices=("stock", "hybrid", "both"), help=what)
    alone.add_argument("--limit", action=Once, type=positive, metavar="N", help="first questions of each exam")
    alone.add_argument("--engine", action=Once, choices=("local", "vllm"), default="local", help="for checkpoints")
    alone.add_argument("--model-name", action=Once, type=word, metavar="NAME", help="of a server: which of its models")
    what = "of a server: the model's tokenizer, needed to score choices"
    alone.add_argument("--tokenizer", action=Once, type=Path, metavar="DIR", help=what)
    alone.add_argument("--chat", action="store_true", help="of a server: ask its chat endpoint")
    alone.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a key of evaluate")
    _out(alone)


def _compare(alone: Parser) -> None:
    """Add what `evaluate compare` takes."""
    for name in ("a", "b"):
        what = "folder of evaluate run; FOLDER:SHEET if it holds several sheets"
        alone.add_argument(name, type=word, metavar=name.upper(), help=what)
    alone.add_argument("--out", action=Once, type=folder, metavar="DIR", help="also as comparison.json and .csv")
    alone.add_argument("--seed", action=Once, type=seed, default=0, metavar="N", help="of the intervals (0)")
    what = "compare though they were not asked in the same way"
    alone.add_argument("--across-protocols", action="store_true", help=what)


def _depth(alone: Parser) -> None:
    """Add what `analyse depth` takes."""
    alone.add_argument("checkpoint", type=Path, metavar="DENSE")
    alone.add_argument("--text", action=Once, type=folder, required=True, metavar="DIR", help="folder of records")
    alone.add_argument("--languages", action=Once, type=codes, default=[], metavar="CODE,CODE", help="only these")
    alone.add_argument("--documents", action=Once, type=positive, default=100, metavar="N", help="a language (100)")
    alone.add_argument("--seed", action=Once, type=seed, default=0, metavar="N", help="of the interval's draws (0)")
    _out(alone)


def _analyse_run(alone: Parser) -> None:
    """Add what `analyse run` takes."""
    alone.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder or hub id of any mixture")
    text = alone.add_mutually_exclusive_group(required=True)
    what = "folder of .jsonl or .txt, a file a language"
    text.add_argument("--text", action=Once, type=folder, metavar="DIR", help=what)
    text.add_argument("--starter", action="store_true", help="the starter corpus, all of it")
    text.add_argument("--corpus", action=Once, type=folder, metavar="DIR", help="what a built corpus or run holds out")
    alone.add_argument("--languages", action=Once, type=codes, default=[], metavar="CODE,CODE", help="only these")
    what = "texts of a language, translations together (all; held out 40)"
    alone.add_argument("--documents", action=Once, type=positive, metavar="N", help=what)
    what = "route again with every token told its family"
    alone.add_argument("--forced", action="store_true", help=what)
    alone.add_argument("--tokens", action="store_true", help="write a table of single tokens, of a sample")
    what = "checkpoints (step-*) of its training, for how early routing settles"
    alone.add_argument("--checkpoints", action=Once, type=folder, metavar="DIR", help=what)
    what = "drop, force and keep experts on N texts of each language, and measure the loss"
    alone.add_argument("--causal", action=Once, type=positive, metavar="N", help=what)
    _out(alone)


def _difficulty(alone: Parser) -> None:
    """Add what `evaluate difficulty` takes."""
    alone.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    alone.add_argument("--against", action=Once, type=Path, metavar="CHECKPOINT", help="a stronger one, for the gap")
    alone.add_argument("--corpus", action=Once, type=Path, required=True, metavar="DIR", help="a built corpus or run")
    alone.add_argument("--out", action=Once, type=folder, required=True, metavar="FILE", help="Parquet file")


def _corpus(corpus: Any) -> None:
    """Add what the corpus stage does."""
    build = _command(corpus, "build", commands_corpus.cmd_corpus_build, "build the corpus of a recipe")
    _recipe_arguments(build)
    _out(build)
    what = "do one job of a corpus that corpus.engine: slurm has planned"
    shard = _command(corpus, "shard", commands_corpus.cmd_corpus_shard, what)
    _recipe_arguments(shard)
    shard.add_argument("--phase", action=Once, required=True, choices=("clean", "decide", "select", "finish"))
    shard.add_argument("--index", action=Once, type=whole, default=0, metavar="I", help="of the job, from 0 (0)")
    shard.add_argument(
        "--of", action=Once, type=positive, default=1, metavar="N", help="jobs that share the shards (1)"
    )
    _out(shard)
    what = "train what checks languages, on text whose languages are known"
    _train_identifier(_command(corpus, "train-identifier", commands_corpus.cmd_train_identifier, what))
    what = "audit translations beside their sources"
    _corpus_audit(_command(corpus, "audit", commands_corpus.cmd_corpus_audit, what))
    inspect = _command(corpus, "inspect", commands_corpus.cmd_corpus_inspect, "print the data card of a built corpus")
    inspect.add_argument("folder", type=Path, metavar="DIR")
    what = "what the mixture of a recipe makes of a built corpus"
    _recipe_arguments(mix := _command(corpus, "mix", commands_corpus.cmd_corpus_mix, what))
    mix.add_argument("--corpus", action=Once, type=Path, required=True, metavar="DIR", help="a built corpus or run")
    what = "count in its tokens (the run's; characters without one)"
    mix.add_argument("--tokenizer", action=Once, type=Path, metavar="DIR", help=what)
    what = "show what was kept and dropped of one language, and why"
    inspect.add_argument("--language", action=Once, type=word, metavar="CODE", help=what)


def _corpus_audit(audit: Parser) -> None:
    """Add what `corpus audit` takes."""
    audit.add_argument("source", type=Path, metavar="SOURCE", help="file of documents")
    audit.add_argument("target", type=Path, nargs="+", metavar="TARGET", help="files of their translations")
    audit.add_argument("--only", action="append", metavar="NAME", help="only records of this source; may be repeated")
    audit.add_argument("--glossary", action=Once, type=Path, metavar="CSV", help="source_language,term,language,form")
    how = audit.add_mutually_exclusive_group()
    how.add_argument("--norms", action=Once, type=Path, metavar="FILE", help="what is usual, learned before")
    how.add_argument(
        "--learn", action=Once, type=Path, metavar="FILE", help="take these as good and write what is usual"
    )
    audit.add_argument("--reliability", action=Once, type=share, default=0.8, metavar="R",
        help="terms that good translations keep less often do not fail (0.8)")  # fmt: skip


def _train_identifier(loop: Parser) -> None:
    """Add what `corpus train-identifier` takes."""
    loop.add_argument("--text", action=Once, type=Path, required=True, metavar="DIR", help="folder of records")
    loop.add_argument("--out", action=Once, type=Path, required=True, metavar="FILE", help="file that is made")
    loop.add_argument("--languages", action=Once, type=word, metavar="CODE,CODE", help="only these of the text")
    loop.add_argument("--held-out", action=Once, type=share, default=0.0, metavar="S",
        help="share of each source that is not trained on")  # fmt: skip
    loop.add_argument("--windows", action=Once, type=positive, default=4000, metavar="N", help="a language (4000)")
    loop.add_argument("--seed", action=Once, type=seed, default=0, metavar="N", help="of all that is drawn (0)")


def _upcycle_build(build: Parser) -> None:
    """Add what `upcycle build` takes; each option is a key of the recipe's section."""
    build.add_argument(
        "dense", type=word, metavar="DENSE", help="folder or hub id of a dense checkpoint, or a recipe (.yaml)"
    )
    build.add_argument("out", nargs="?", type=folder, metavar="OUT", help="folder that does not exist yet")
    build.add_argument("--families", action=Once, type=word, metavar="NAME", help="preset or families file (balanced)")
    build.add_argument("--experts", action=Once, type=positive, metavar="E", help="checked against the preset's number")
    build.add_argument("--place", action=Once, choices=("last", "first", "random", "all"), metavar="WHERE",
        help="sparse layers: last, first, random (by --seed) or all")  # fmt: skip
    where = build.add_mutually_exclusive_group()
    where.add_argument("--last-layers", action=Once, type=positive, metavar="L", help="how many sparse layers (2)")
    where.add_argument("--layers", action=Once, type=indices, metavar="I,J", help="or these, counted from 0")
    build.add_argument("--top-k", action=Once, type=positive, metavar="K", help="experts for each token (2)")
    build.add_argument(
        "--shared-expert", action=Once, nargs="?", const="zero", choices=("zero", "copy"), metavar="START",
        help="one more for every token: zero (adds nothing at first) or copy (as published)",
    )  # fmt: skip
    build.add_argument("--router-init", action=Once, choices=("random", "zero", "centroid"), metavar="HOW",
        help="router rows: random, zero, or centroid (means of the families' states)")  # fmt: skip
    apart = build.add_mutually_exclusive_group()
    apart.add_argument("--noise", action=Once, type=rate, metavar="S", help="on expert copies, a share of their std")
    apart.add_argument("--reinit", action=Once, type=share, metavar="R", help="share of inner units drawn again")
    build.add_argument("--unnormalised", action="store_true", help="weights of the picks as the paper leaves them")
    build.add_argument("--routing", action=Once, choices=("hybrid", "topk", "language"), metavar="R",
        help="routing it is to be trained with (hybrid)")  # fmt: skip
    build.add_argument("--seed", action=Once, type=seed, metavar="N", help="of all that is drawn (0)")
    build.add_argument("--dry-run", action="store_true", help="print what would be built, from the config alone")


def _train_plan(plan: Parser) -> None:
    """Add what `train plan` takes."""
    _recipe_arguments(plan)
    plan.add_argument("--gpus", action=Once, type=counts, default=[1, 8, 64], metavar="N,N", help="(1,8,64)")
    plan.add_argument("--gpu-memory", action=Once, type=rate, default=80.0, metavar="GB", help="of one GPU (80)")
    plan.add_argument("--tflops", action=Once, type=rate, metavar="T", help="its peak; an H100's when left out")
    plan.add_argument("--mfu", action=Once, type=share, default=0.4, metavar="R", help="share of it reached (0.4)")
    plan.add_argument("--tokens", action=Once, type=positive, metavar="N", help="instead of the recipe's length")


def _group(groups: Any, name: str, what: str) -> Any:
    group = groups.add_parser(name, help=what, description=what)
    group.set_defaults(parser=group, action=None)
    return group.add_subparsers(dest="action", metavar="action", parser_class=Parser)


def _command(group: Any, name: str, work: Callable[[Namespace], int], what: str) -> Parser:
    parser: Parser = group.add_parser(name, help=what, description=what)
    parser.set_defaults(work=work, parser=parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def _out(parser: Parser) -> None:
    parser.add_argument("--out", action=Once, type=folder, required=True, metavar="DIR", help="folder for what is made")


def _recipe_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key=value")


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
        try:
            return _dispatch(argv)
        finally:  # also after --help, which ends in SystemExit
            sys.stdout.flush()
    except PolyclinicError as err:
        return _fail(err)
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        return 130
    except OSError as err:
        _drop_stdout()
        what = (err.strerror or type(err).__name__).lower()
        return _fail(DiskError(err.filename or PROGRAM, what, "check space and permissions, then run again"))
    except ModuleNotFoundError as err:
        what = f"the package {err.name} is not installed"
        return _fail(MissingDependencyError(PROGRAM, what, "pip install 'polyclinic[train,evaluate,report]'"))
    except Exception as err:
        if os.environ.get("POLYCLINIC_DEBUG"):
            raise
        if found := _OS_ERROR.search(str(err)):
            what = os.strerror(int(found[1])).lower()
            return _fail(DiskError(PROGRAM, what, "check space and permissions, then run again"))
        what = f"{type(err).__name__}: {str(err)[:200]}"
        return _fail(PolyclinicError(PROGRAM, what, "a fault of ours: POLYCLINIC_DEBUG=1 shows where"))


def _drop_stdout() -> None:
    """Keep the interpreter from complaining at its end about what stdout did not take."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(err: PolyclinicError) -> int:
    """Say what went wrong; of a command line or recipe that every process of torchrun read, the first says it."""
    if os.environ.get("RANK", "0") == "0" or err.exit_code not in (UsageError.exit_code, RecipeError.exit_code):
        sys.stderr.write(f"error: {err}\n")
    return err.exit_code


if __name__ == "__main__":
    sys.exit(main())
