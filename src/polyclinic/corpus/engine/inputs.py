"""Which inputs a corpus has, in a fixed order with their digests: the plan that all else follows.

One piece of a file is one shard. The list depends on the recipe and the files, never on the number
of workers. Written down, it holds no path that only one machine knows.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.corpus import starter
from polyclinic.corpus.engine import parts
from polyclinic.corpus.engine.parts import Piece
from polyclinic.corpus.read import hub
from polyclinic.corpus.read.rows import Part
from polyclinic.corpus_section import CorpusSection, Source
from polyclinic.errors import DataError
from polyclinic.families import fifty
from polyclinic.languages import language
from polyclinic.runs import digest, read_json

STARTER = "starter"
PLAN = "plan.json"
STEM = 40  # characters of a file's name in that of its shard


class Input(NamedTuple):
    """One piece of a file (or the starter corpus) of one source: one shard."""

    name: str
    number: int  # of the source
    source: Source
    path: Path | None
    sha256: str  # of the piece
    size: int = 0  # bytes of the piece
    part: Part | None = None  # None: the whole file
    at: int = 0  # number of its file among those of its source
    file: str = STARTER  # how errors and ids call it: its path below the root

    @property
    def piece(self) -> Piece:
        """Return what it reads of its file."""
        return Piece(self.part, self.size, self.sha256)


class Plan(NamedTuple):
    """All inputs of a corpus: its texts, its exams, and what else training text must not hold."""

    texts: tuple[Input, ...]
    exams: tuple[Input, ...]
    against: tuple[Input, ...] = ()


PiecesOf = Callable[[int, int, Path], Sequence[Piece]]


def wanted_languages(section: CorpusSection) -> tuple[str, ...]:
    """Return the codes a recipe asks for, checked and without aliases."""
    return tuple(language(code).code for code in section.languages or fifty())


def plan(section: CorpusSection, sources: Iterable[Source]) -> list[Input]:
    """List the inputs in a fixed order with their digests; raises DataError if a glob finds nothing.

    Names sort like the list, and no two are equal, whatever the files are called.
    """
    return _plan(section, sources, lambda number, index, path: parts.pieces(path))


def plan_all(section: CorpusSection) -> Plan:
    """List all inputs."""
    return Plan(*(tuple(plan(section, sources)) for sources in _lists(section)))


def _lists(section: CorpusSection) -> tuple[Sequence[Source], ...]:
    return section.texts, section.exams, section.decontaminate.against if section.decontaminate else ()


def _plan(section: CorpusSection, sources: Iterable[Source], pieces_of: PiecesOf) -> list[Input]:
    out: list[Input] = []
    for number, source in enumerate(sources):
        if source.starter:
            out.append(Input(f"{number:03d}-{STARTER}", number, source, None, starter.version()))
            continue
        files = _named(Path(section.root), source)
        digits = max(5, len(str(len(files))))
        for at, (path, file) in enumerate(files):
            stem = re.sub(r"[^\w.-]", "_", path.stem[:STEM])
            name = f"{number:03d}-{at:0{digits}d}-{stem}"
            for index, piece in enumerate(pieces_of(number, at, path)):
                shard = name if piece.part is None else f"{name}-part-{index:05d}"
                out.append(Input(shard, number, source, path, piece.sha256, piece.size, piece.part, at, file))
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
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return os.fsencode(name).decode("utf-8", "replace")  # it stands in ids, which are text


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


def written(section: CorpusSection, planned: Plan) -> dict[str, Any]:
    """Return a plan as a JSON value."""
    rows = {name: [_row(section, item) for item in items] for name, items in planned._asdict().items()}
    return {"settings": digest(section.cleaning()), **rows}


def _row(section: CorpusSection, item: Input) -> dict[str, Any]:
    facts = {"name": item.name, "source": item.number, "number": item.at}
    return {**facts, "file": item.file, "bytes": item.size, "sha256": item.sha256, "part": item.part}


def read_plan(path: Path, section: CorpusSection) -> Plan:
    """Find the inputs that a written plan names, without reading them.

    Raises DataError where the recipe or the list of files has changed since.
    """
    raw = read_json(path)
    known = [_known(raw[name]) for name in Plan._fields]
    found = Plan(
        *(tuple(_plan(section, sources, pieces)) for sources, pieces in zip(_lists(section), known, strict=True))
    )
    if digest(written(section, found)) != digest(raw):
        raise DataError(path, "is the plan of another recipe or of other files", "run polyclinic corpus build again")
    return found


def _known(rows: Iterable[Mapping[str, Any]]) -> PiecesOf:
    """Return the pieces of files as a plan lists them, by source and place among its files."""
    known: dict[tuple[int, int], list[Piece]] = {}
    for row in rows:
        part = Part(*row["part"]) if row["part"] else None
        known.setdefault((row["source"], row["number"]), []).append(Piece(part, row["bytes"], row["sha256"]))
    nothing = [Piece(None, -1, "")]  # of a file that the plan does not know, so that the two differ
    return lambda number, index, path: known.get((number, index), nothing)
