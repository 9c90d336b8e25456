"""What a mixture makes of a corpus, as a table: the dry run of packing, and a section of its facts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from polyclinic.corpus.pack.mixture import Group, Mixing, draw
from polyclinic.corpus.pack.pack import Specials, tokenise
from polyclinic.progress import Progress
from polyclinic.records import Document

AXES = ("family", "language", "source", "category")


class Line(NamedTuple):
    """One name of one axis: documents and tokens there are, what is packed of them, and both as shares."""

    name: str
    documents: int
    tokens: int
    appearances: int
    packed: int
    epochs: float
    before: float
    after: float


class Lengths:
    """Takes documents as a token store does and keeps their lengths alone."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._groups: list[int] = []

    def add(self, record: str, group: int, tokens: Sequence[int], labels: Sequence[int]) -> None:
        """Note one document."""
        self._lengths.append(len(tokens))
        self._groups.append(group)

    def seal(self) -> None:
        """Turn what was noted into arrays."""
        self.lengths = np.array(self._lengths, dtype=np.int32)
        self.groups = np.array(self._groups, dtype=np.int32)


def dry_run(
    documents: Iterable[Document],
    vocabulary: tuple[Tokenizer, Specials] | None,
    mix: Mixing | None,
    expert_of: Callable[[str], int],
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return what packing would note of each group, counted in tokens, or in characters without a vocabulary."""
    found = Lengths()
    if vocabulary is None:
        groups = _characters(documents, found)
    else:
        groups = tokenise(documents, *vocabulary, "all", found, progress)
    return draw(mix, groups, [expert_of(g.language) for g in groups], found.groups, found.lengths, seed).rows


def _characters(documents: Iterable[Document], found: Lengths) -> list[Group]:
    numbers: dict[Group, int] = {}
    for document in documents:
        group = Group(document.source, document.category, document.language)
        found.add(document.id, numbers.setdefault(group, len(numbers)), range(len(document.text())), ())
    found.seal()
    return list(numbers)


def table(rows: Iterable[Mapping[str, Any]], axis: str, families: Sequence[str]) -> list[Line]:
    """Add up groups by family, language, source or category, the largest share of what is packed first."""
    sums: dict[str, list[int]] = {}
    for row in rows:
        name = families[row["expert"]] if axis == "family" else row[axis] or "not said"
        values = [row[key] for key in ("documents", "tokens", "appearances", "packed")]
        sums[name] = [a + b for a, b in zip(sums.get(name, [0] * 4), values, strict=True)]
    tokens, packed = (max(1, sum(one[i] for one in sums.values())) for i in (1, 3))
    lines = [Line(name, d, t, a, p, p / t if t else 0.0, t / tokens, p / packed) for name, (d, t, a, p) in sums.items()]
    return sorted(lines, key=lambda line: (-line.packed, line.name))


def as_text(rows: Sequence[Mapping[str, Any]], families: Sequence[str], unit: str) -> list[str]:
    """Return the tables of all axes as lines of text."""
    out = []
    for axis in AXES:
        lines = table(rows, axis, families)
        width = max([len(axis), *(len(line.name) for line in lines)])
        head = ("documents", unit, "appear", "packed", "epochs", "before %", "after %")
        out += [f"{axis:<{width}}" + "".join(f"{name:>13}" for name in head)]
        for line in lines:
            counts = "".join(f"{n:>13,}" for n in line[1:5])
            out.append(
                f"{line.name:<{width}}{counts}{line.epochs:>13.2f}{100 * line.before:>13.2f}{100 * line.after:>13.2f}"
            )
        out.append("")
    return out[:-1]
