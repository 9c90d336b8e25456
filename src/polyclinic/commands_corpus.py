"""The commands that make what the corpus stage works with."""

import sys
from argparse import Namespace

from polyclinic.commands import emit
from polyclinic.errors import DataError, UsageError


def cmd_train_identifier(arguments: Namespace) -> int:
    """Train a language identifier on text whose languages are known."""
    if arguments.out.exists():
        raise UsageError(arguments.out, "exists already", "name a new file")

    from polyclinic.console import ConsoleProgress
    from polyclinic.corpus import readers
    from polyclinic.corpus.train_identifier import hold_out, train
    from polyclinic.corpus_section import Source
    from polyclinic.languages import language

    asked = arguments.languages.split(",") if arguments.languages else []
    only = [language(code, where="--languages").code for code in asked] or None
    files = sorted(p for kind in ("*.jsonl", "*.parquet") for p in arguments.text.glob(kind))
    if not files:
        raise DataError(arguments.text, "no .jsonl or .parquet file in it", "name a folder of records")
    found = (d for p in files for d in readers.read(p, Source(path=p.name, languages=only), readers.to_document))
    documents, _ = hold_out(found, arguments.held_out)
    with ConsoleProgress(sys.stderr) as progress:
        progress.stage("train", "a language identifier")
        model = train(documents, progress, arguments.windows, arguments.seed)
    model.save(arguments.out)
    value = {"file": str(arguments.out), "languages": list(model.labels), "documents": len(documents)}
    return emit(arguments, value, [f"{arguments.out}  {len(model.labels)} languages, {len(documents)} documents"])
