"""One question as one model answered it: the record from which every table is computed."""

from typing import NamedTuple


class Item(NamedTuple):
    """Positions of the right and the picked options, and what they were picked by; no text but the model's own."""

    task: str
    exam: str
    language: str
    id: str
    group: str  # translations of one question share it: they are one item to a test
    options: int
    gold: tuple[int, ...]
    picked: tuple[int, ...] | None  # None: nothing could be read of the answer
    scores: tuple[float, ...] = ()  # nats of each choice, per byte where options are scored; none of a written answer
    raw: str = ""  # what the model wrote

    @property
    def right(self) -> bool:
        """Say whether exactly the right options were picked."""
        return self.picked is not None and set(self.picked) == set(self.gold)
