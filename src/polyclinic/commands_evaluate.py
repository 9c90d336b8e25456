"""What the commands of the evaluate stage beside `run` do."""

import os
import sys
from argparse import Namespace

from polyclinic.commands import built_corpus, emit, not_inside
from polyclinic.errors import DiskError


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


def cmd_evaluate_list(arguments: Namespace) -> int:
    """Show the exams, what each takes to be run, and the languages that have none."""
    from polyclinic.evaluate.suite import listing

    codes = None if arguments.languages is None else [code for code in arguments.languages.split(",") if code]
    found = listing.rows(codes)
    lacking = listing.missing(found, codes)
    return emit(arguments, {"exams": found, "missing": lacking}, listing.lines(found, lacking))


def cmd_evaluate_tasks_path(arguments: Namespace) -> int:
    """Print the folder of the packaged tasks, for `lm_eval --include_path`."""
    from polyclinic.evaluate.suite.table import tasks_folder

    return emit(arguments, {"path": str(tasks_folder())}, [str(tasks_folder())])
