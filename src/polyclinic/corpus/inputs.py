"""Which inputs a corpus has, in a fixed order with their digests: the plan that all else follows.

One input file is one shard. The list depends on the recipe and the files, never on the number of
workers.
"""

from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import NamedTuple

from polyclinic.corpus import hub, starter
from polyclinic.corpus_section import CorpusSection, Source
from polyclinic.errors import DataError
from polyclinic.families import fifty
from polyclinic.languages import language
from polyclinic.runs import sha256_file

STARTER = "starter"


class Input(NamedTuple):
    """One file (or the starter corpus) of one source: one shard."""

    name: str
    number: int  # of the source
    source: Source
    path: Path | None
    sha256: str
    file: str = STARTER  # how errors and ids call it: its path below the root


def wanted_languages(section: CorpusSection) -> tuple[str, ...]:
    """Return the codes a recipe asks for, checked and without aliases."""
    return tuple(language(code).code for code in section.languages or fifty())


def plan(section: CorpusSection, sources: Iterable[Source]) -> list[Input]:
    """List the inputs in a fixed order with their digests; raises DataError if a glob finds nothing.

    Names sort like the list, and no two are equal, whatever the files are called.
    """
    out: list[Input] = []
    for number, source in enumerate(sources):
        if source.starter:
            out.append(Input(f"{number:03d}-{STARTER}", number, source, None, starter.version()))
            continue
        for index, (path, file) in enumerate(_named(Path(section.root), source)):
            name = f"{number:03d}-{index:05d}-{path.stem}"
            out.append(Input(name, number, source, path, sha256_file(path), file))
    return out


def _named(root: Path, source: Source) -> list[tuple[Path, str]]:
    """Return the files of a source, each with the name that errors and ids call it by."""
    if source.hub is not None:
        return hub.files(source)
    found: list[Path] = []
    for path in _files(root, str(source.path)):
        found += hub.saved(path) if path.is_dir() else [path]
    return [(path, called(path, root)) for path in found]


def called(path: Path, root: Path) -> str:
    """Return a file's path below the root; its name alone where it is not below it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _files(root: Path, pattern: str) -> list[Path]:
    """Return the files and saved data sets of a path or glob, sorted; raises DataError where there is none."""
    named = root / pattern
    names = glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - a pattern may be absolute
    found = [named] if _is_input(named) else sorted(root / name for name in names if _is_input(root / name))
    if not found:
        raise DataError(named, "no file matches", "check corpus.root and the path")
    return found


def _is_input(path: Path) -> bool:
    return path.is_file() or hub.is_saved(path)
