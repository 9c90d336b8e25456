"""Items with what every table needs of them: what is drawn together, and what guessing would score."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.guessing import expected_hamming, hamming, odds


class Marked(NamedTuple):
    """An item, its cluster, and whether its exam has questions with several right answers."""

    item: Item
    cluster: str
    several: bool

    @property
    def odds(self) -> float:
        """Return the chance of guessing the item."""
        return odds(self.item.options, self.several)

    @property
    def hamming(self) -> float:
        """Return how much of the right answer was picked."""
        return hamming(self.item.picked, self.item.gold)

    @property
    def expected_hamming(self) -> float:
        """Return what guessing any set of options would score."""
        return expected_hamming(self.item.options, len(set(self.item.gold)))


def mark(items: Sequence[Item], several: Collection[str] | None = None) -> list[Marked]:
    """Return marked items; `several` names the exams with several right answers, else they are found.

    Raises DataError for no items, an item twice, and answers outside the options.
    """
    check(items)
    if several is None:
        several = {i.exam for i in items if len(set(i.gold)) > 1 or len(i.scores) > i.options}
    return [Marked(i, cluster, i.exam in several) for i, cluster in zip(items, clusters_of(items), strict=True)]


def clusters_of(items: Sequence[Item]) -> list[str]:
    """Return the name of each item's cluster: its group.

    A group that is the id of an item of the same exam joins nothing in other exams: many number
    their questions from 1.
    """
    own = {(i.exam, i.group) for i in items if i.id == i.group}
    return [f"{i.exam}\n{i.group}" if (i.exam, i.group) in own else i.group for i in items]


def check(items: Sequence[Item], where: str = "items") -> None:
    """Refuse items of which no score can be made; raises DataError."""
    if not items:
        raise DataError(where, "no items", "ask at least one question")
    seen: set[tuple[str, str]] = set()
    for i in items:
        if (i.task, i.id) in seen:
            raise DataError(where, f"item {i.id} of {i.task} stands there twice", "keep one of them")
        seen.add((i.task, i.id))
        places = {*i.gold, *(i.picked or ())}
        if not i.gold or not all(0 <= place < i.options for place in places):
            what = f"item {i.id} of {i.task} has answers {sorted(places)} of {i.options} options"
            raise DataError(where, what, "correct the exam or what reads the answers")
