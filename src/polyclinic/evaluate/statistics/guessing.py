"""What a model that knows nothing scores: blind guessing, and the best answer that is always the same."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from math import comb
from typing import NamedTuple

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Constant(NamedTuple):
    """Positions that are right most often, and their share: known only in hindsight, so a generous baseline."""

    answer: tuple[int, ...]
    share: float

    @property
    def letters(self) -> str:
        """Return the answer as a person reads it."""
        return ", ".join(LETTERS[place] for place in self.answer)


def odds(options: int, several: bool = False) -> float:
    """Return the chance of guessing one item: of one option, or of any non-empty set of options."""
    return 1 / (2**options - 1) if several else 1 / options


def chance(num_options: Sequence[int]) -> float:
    """Return the expected accuracy of blind guessing over items with these numbers of options."""
    return sum(odds(n) for n in num_options) / len(num_options)


def hamming(picked: Iterable[int] | None, gold: Iterable[int]) -> float:
    """Return the shared part of two sets of options, intersection by union; 0 where nothing was picked."""
    ours, theirs = set(picked or ()), set(gold)
    return len(ours & theirs) / len(ours | theirs)


@cache
def expected_hamming(options: int, right: int) -> float:
    """Return the mean of `hamming` over all non-empty sets of options, `right` of which are right."""
    total = 0.0
    for hits in range(right + 1):
        for misses in range(options - right + 1):
            total += comb(right, hits) * comb(options - right, misses) * hits / (right + misses)
    return total / float(2**options - 1)


def best_constant(gold: Iterable[tuple[int, ...]]) -> Constant:
    """Return the answer that is right most often in these items, the first of equals."""
    counts = Counter(tuple(sorted(one)) for one in gold)
    answer, times = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Constant(answer, times / counts.total())
