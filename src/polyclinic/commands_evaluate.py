"""What the commands of the evaluate stage beside `run` do."""

import os
import sys
from argparse import Namespace

from polyclinic.commands import built_corpus, emit, not_inside
from polyclinic.errors import DataError, DiskError


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
