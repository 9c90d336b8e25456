"""What the commands of the analyse stage beside `run` do."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polyclinic.commands import emit, not_inside
from polyclinic.errors import DataError


def cmd_analyse_depth(arguments: Namespace) -> int:
    """Measure how apart languages are in each layer of a dense model, and recommend where to place experts."""
    not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.text)])

    from polyclinic.analyse.depth.run import RESULT, lines, run
    from polyclinic.console import ConsoleProgress
    from polyclinic.runs import RunFolder, read_json, sha256_file, weight_digests

    files, codes = text_files(arguments.text), language_codes(arguments.languages)
    key = {
        **{"documents": arguments.documents, "seed": arguments.seed, "languages": codes},
        "depth": weight_digests(arguments.checkpoint),
        "text": {path.name: sha256_file(path) for path in files},
    }
    progress = ConsoleProgress(sys.stderr)
    with RunFolder.open(arguments.out) as folder:
        folder.step(
            "depth",
            key,
            lambda f: run(
                arguments.checkpoint, documents_of(files, codes), f, progress, arguments.documents, seed=arguments.seed
            ),
        )
    result = read_json(arguments.out / "depth" / RESULT)
    return emit(arguments, result, lines(result))


def text_files(folder: Path) -> list[Path]:
    """Return the files of records in a folder; raises DataError where there is none."""
    files = sorted(path for kind in ("*.jsonl", "*.parquet") for path in folder.glob(kind))
    if not files:
        raise DataError(folder, "no .jsonl or .parquet file in it", "name a folder of records")
    return files


def language_codes(text: str | None) -> list[str] | None:
    """Return the codes of a list with commas, without aliases; None where none is given."""
    from polyclinic.languages import language

    return [language(code, where="--languages").code for code in text.split(",")] if text else None


def documents_of(files: Sequence[Path], codes: list[str] | None) -> Iterator[Any]:
    """Yield the documents of files of records, of these languages alone where some are given."""
    from polyclinic.corpus.read.layouts import to_document
    from polyclinic.corpus.read.read import read
    from polyclinic.corpus_section import Source

    for path in files:
        yield from read(path, Source(path=path.name, languages=codes), to_document)
