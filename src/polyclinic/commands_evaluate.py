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
