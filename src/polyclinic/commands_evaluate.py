"""What the commands of the evaluate stage do."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from polyclinic.commands import built_corpus, emit, not_inside
from polyclinic.errors import DataError, DiskError, UsageError

REPORT = "report.html"


def cmd_evaluate_run(arguments: Namespace) -> int:
    """Ask one model exams of the suite, of a corpus, or of both; measure held-out loss where there is text."""
    served = arguments.model.startswith(("http://", "https://"))
    corpus = built_corpus(arguments.corpus) if arguments.corpus else None
    not_inside(arguments.out, [None if served else arguments.model, str(corpus) if corpus else None])
    section = _section(arguments)

    from polyclinic.console import ConsoleProgress
    from polyclinic.evaluate import opening, parts
    from polyclinic.evaluate.report.markdown import lines
    from polyclinic.evaluate.run import run
    from polyclinic.evaluate.statistics.leak_flags import leaks_of
    from polyclinic.moe.checkpoint import resolve
    from polyclinic.runs import MANIFEST, RunFolder, read_json, sha256_file, write_bytes

    exams = [*_exams_of(corpus), *parts.of_suite(section.tasks, section.languages)]
    checkpoint = None if served else resolve(arguments.model)
    models, about = _models(arguments, section, checkpoint)
    progress = ConsoleProgress(sys.stderr)

    def work(folder: Path) -> Any:
        loss = _loss(section, checkpoint, corpus)
        leaks = leaks_of(corpus) if corpus else None
        return run(section, models, exams, folder, progress, opening.family_of(checkpoint), leaks, loss)

    key = {"evaluate": section.model_dump(), "exams": parts.key(exams), **about}
    key |= {"corpus": sha256_file(corpus / MANIFEST)} if corpus else {}
    with RunFolder.open(arguments.out) as run_folder:
        run_folder.step("evaluate", key, work)
    result = read_json(arguments.out / "evaluate" / "scores.json")
    write_bytes(arguments.out / REPORT, _page(arguments, result).encode())
    return emit(arguments, result, [*lines(result), f"report   {arguments.out / REPORT}"])


def _section(arguments: Namespace) -> Any:
    """Return the evaluate section of a command line; its options stand over `--set`."""
    from polyclinic.recipe import EvaluateSection, override, section_of

    values: dict[str, Any] = {}
    for assignment in arguments.set:
        override(values, assignment)
    given = {"tasks": arguments.tasks, "languages": arguments.languages, "protocols": arguments.protocol}
    given |= {"routing": arguments.routing, "max_questions": arguments.limit}
    values |= {name: value for name, value in given.items() if value is not None}
    section = section_of(EvaluateSection, values, "polyclinic evaluate run")
    if not (section.tasks or arguments.corpus):
        raise UsageError("polyclinic evaluate run", "nothing to ask", "give --tasks all-local, --corpus DIR or both")
    return section


def _models(arguments: Namespace, section: Any, checkpoint: Path | None) -> tuple[Any, dict[str, Any]]:
    """Return what is asked, and what of it decides the answers."""
    from polyclinic.evaluate import opening
    from polyclinic.runs import weight_digests

    answers = arguments.out / opening.ANSWERS
    if checkpoint is not None:
        about = {"checkpoint": weight_digests(checkpoint), "engine": arguments.engine}
        if arguments.engine == "vllm":
            return opening.in_vllm("model", checkpoint, answers), about
        return opening.local("model", checkpoint, section, answers), about
    if not arguments.model_name:
        raise UsageError("polyclinic evaluate run", "a server serves models by name", "give --model-name NAME")
    from polyclinic.evaluate.exams import check_installed

    check_installed()
    from polyclinic.evaluate.backends.server import Endpoint

    endpoint = Endpoint(arguments.model, arguments.model_name, arguments.tokenizer, arguments.chat)
    return opening.served("model", endpoint, section, answers), {"endpoint": endpoint.facts()}


def _exams_of(corpus: Path | None) -> list[Any]:
    from polyclinic.corpus.tables import read_rows
    from polyclinic.evaluate import parts
    from polyclinic.records import Question

    rows = read_rows(corpus / "questions.parquet") if corpus else ()
    return parts.of_corpus(Question.from_row(row) for row in rows)


def _loss(section: Any, checkpoint: Path | None, corpus: Path | None) -> dict[str, Any]:
    """Return held-out loss, where there are a checkpoint to load and text to score."""
    if checkpoint is None or corpus is None:
        return {}
    from polyclinic.corpus.build import read_documents
    from polyclinic.evaluate.run import losses

    return losses(section, {"model": checkpoint}, read_documents(corpus))


def _page(arguments: Namespace, result: Any) -> str:
    from polyclinic.evaluate.report.fragments import fragments
    from polyclinic.evaluate.report.rows import cards
    from polyclinic.page import scores_page

    settings = {"model": arguments.model, "sheets": [sheet["protocol"] for sheet in result["sheets"]]}
    return scores_page("scores", cards(result), fragments(arguments.out / "evaluate"), settings)


def cmd_evaluate_difficulty(arguments: Namespace) -> int:
    """Write how hard each document of a built corpus is for a model."""
    corpus = built_corpus(arguments.corpus)
    not_inside(arguments.out, [str(arguments.corpus), str(arguments.checkpoint)])
    if arguments.out.is_dir() or not arguments.out.parent.is_dir() or not os.access(arguments.out.parent, os.W_OK):
        raise DiskError(arguments.out, "cannot be written", "name a file in a folder that is there")

    from polyclinic.console import ConsoleProgress
    from polyclinic.corpus.build import read_documents
    from polyclinic.evaluate.difficulty import write_difficulty

    progress = ConsoleProgress(sys.stderr)
    count = write_difficulty(
        arguments.checkpoint, arguments.against, lambda: read_documents(corpus), arguments.out, progress
    )
    value = {"documents": count, "file": str(arguments.out)}
    return emit(arguments, value, [f"{count:,} documents   {arguments.out}"])


def cmd_evaluate_compare(arguments: Namespace) -> int:
    """Compare two models on the questions that both were asked."""
    from polyclinic.evaluate.answered import protocol_differences, read_answered
    from polyclinic.evaluate.statistics.comparison import compare
    from polyclinic.evaluate.statistics.comparison_lines import comparison_csv, lines
    from polyclinic.runs import write_bytes, write_json

    a, b = read_answered(arguments.a), read_answered(arguments.b)
    differences = protocol_differences(a, b)
    if differences and not arguments.across_protocols:
        what = f"the protocols of A and B differ: {'; '.join(differences)}"
        raise DataError("compare", what, "ask both in the same way, or add --across-protocols")
    if arguments.out is not None:
        not_inside(arguments.out, [str(place) for run in (a, b) for place in (run.folder, run.folder.parent)])
    named = {"a": a.name, "b": b.name, "protocol_differences": differences}
    result = {**named, **compare(a.items, b.items, arguments.seed)}
    if arguments.out is not None:
        arguments.out.mkdir(exist_ok=True)
        write_json(arguments.out / "comparison.json", result)
        write_bytes(arguments.out / "comparison.csv", comparison_csv(result).encode())
    warned = [f"asked under different protocols: {'; '.join(differences)}"] if differences else []
    return emit(arguments, result, [f"A  {a.name}", f"B  {b.name}", *warned, "", *lines(result)])


def cmd_evaluate_list(arguments: Namespace) -> int:
    """Show the exams, what each takes to be run, and the languages that have none."""
    from polyclinic.evaluate.suite import listing

    found = listing.rows(arguments.languages)
    lacking = listing.missing(found, arguments.languages)
    return emit(arguments, {"exams": found, "missing": lacking}, listing.lines(found, lacking))


def cmd_evaluate_tasks_path(arguments: Namespace) -> int:
    """Print the folder of the packaged tasks, for `lm_eval --include_path`."""
    from polyclinic.evaluate.suite.table import tasks_folder

    return emit(arguments, {"path": str(tasks_folder())}, [str(tasks_folder())])
