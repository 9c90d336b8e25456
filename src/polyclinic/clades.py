"""Glottolog's tree over some languages: how near two are, and how to cut it into even groups.

Pure functions on codes; `families.py` turns their result into families. The rule of `even_groups`
is the one of design.md section 4: split the heavy at the next branching, merge the lightest.
"""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from math import fsum
from typing import NamedTuple

from polyclinic.languages import Language, language

_LONGEST_NAME = 40


class Clade(NamedTuple):
    """A node of the tree, with those of the given languages that lie below it."""

    name: str
    codes: tuple[str, ...]


Group = tuple[Clade, ...]


def shared_depth(one: Language, other: Language) -> int:
    """Return how many steps from the root two lineages go together; 0 is unrelated."""
    return _common(one.lineage, other.lineage)


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def even_groups(loads: Mapping[str, float], num_groups: int) -> list[Group]:
    """Cut the tree into groups of clades with loads as even as its branchings allow.

    `loads` are by project code; `num_groups` lies between 1 and the number of languages.
    """
    groups: list[Group] = [(clade,) for clade in _split_heavy(loads, num_groups)]
    while len(groups) > num_groups:
        groups.sort(key=lambda group: (_load(group, loads), _smallest(group)))
        groups[:2] = [groups[0] + groups[1]]
    return sorted(groups, key=lambda group: (-_load(group, loads), _smallest(group)))


def _split_heavy(loads: Mapping[str, float], num_groups: int) -> list[Clade]:
    """Split the heaviest clade that branches while it exceeds the mean or clades are too few."""
    mean = fsum(loads.values()) / num_groups
    clades = _branches(loads, 0)
    while True:
        branching = [clade for clade in clades if len(clade.codes) > 1]
        branching.sort(key=lambda clade: (-_load((clade,), loads), min(clade.codes)))
        if not branching or (_load(branching[:1], loads) <= mean and len(clades) >= num_groups):
            return clades
        clades.remove(branching[0])
        clades += _branches(branching[0].codes, _branching_depth(branching[0]))


def _branches(codes: Iterable[str], depth: int) -> list[Clade]:
    """Group languages by the node which their paths pass at a depth."""
    below: dict[str, list[str]] = {}
    for code in codes:
        below.setdefault(_path(code)[depth], []).append(code)
    return [Clade(name, tuple(members)) for name, members in below.items()]


def _branching_depth(clade: Clade) -> int:
    """Return where the members part, past the nodes that all of them share."""
    first, *others = (_path(code) for code in clade.codes)
    return min(_common(first, other) for other in others)


def _path(code: str) -> tuple[str, ...]:
    """Return the lineage and the language itself, a leaf even where its node has branches too."""
    row = language(code)
    return (*row.lineage, f"{row.name} ({row.code})")


def _load(clades: Iterable[Clade], loads: Mapping[str, float]) -> float:
    """Sum exactly (fsum), so that the order of languages cannot decide a tie."""
    return fsum(loads[code] for clade in clades for code in clade.codes)


def _smallest(group: Group) -> str:
    return min(code for clade in group for code in clade.codes)


def group_name(group: Group, loads: Mapping[str, float]) -> str:
    """Name a group after its clades, heaviest first, or "X and 4 more" where that is long."""
    ranked = sorted(group, key=lambda clade: (-_load((clade,), loads), min(clade.codes)))
    name = " + ".join(clade.name for clade in ranked)
    if len(name) > _LONGEST_NAME and len(ranked) > 1:
        return f"{ranked[0].name} and {len(ranked) - 1} more"
    return name
