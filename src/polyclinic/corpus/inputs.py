"""Which inputs a corpus has, in a fixed order with their digests: the plan that all else follows.

One input file is one shard. The list depends on the recipe and the files, never on the number of
workers.
"""

from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import NamedTuple

from polyclinic.corpus import starter
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

    @property
    def file(self) -> str:
        """Return how messages name it."""
        return self.path.name if self.path else STARTER


def wanted_languages(section: CorpusSection) -> tuple[str, ...]:
    """Return the codes a recipe asks for, checked and without aliases."""
    return tuple(language(code).code for code in section.languages or fifty())


def plan(section: CorpusSection, sources: Iterable[Source]) -> list[Input]:
    """List the inputs in a fixed order with their digests; raises DataError if a glob finds nothing.

    Names sort like the list, and no two are equal, whatever the files are called.
    """
    out: list[Input] = []
    for number, source in enumerate(sources):
        if source.path is None:
            out.append(Input(f"{number:03d}-{STARTER}", number, source, None, starter.version()))
            continue
        for index, path in enumerate(_files(Path(section.root), source.path)):
            out.append(Input(f"{number:03d}-{index:05d}-{path.stem}", number, source, path, sha256_file(path)))
    return out


def _files(root: Path, pattern: str) -> list[Path]:
    """Return the files of a path or glob, sorted; raises DataError where there is none."""
    named = root / pattern
    names = glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - a pattern may be absolute
    found = [named] if named.is_file() else sorted(root / name for name in names if (root / name).is_file())
    if not found:
        raise DataError(named, "no file matches", "check corpus.root and the path")
    return found
