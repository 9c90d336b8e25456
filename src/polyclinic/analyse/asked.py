"""What a person may ask of `analyse run` beyond what the step of a run does."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """Which text is routed, and what is written besides the facts."""

    languages: Sequence[str] = ()  # all where empty
    cap: int | None = None  # texts of a language, translations chosen together
    forced: bool = False  # the same text again, with every token told its family
    tokens: bool = False  # a table of single tokens
    # name of a checkpoint, and what puts its weights into a model; the last one is compared with
    checkpoints: Sequence[tuple[str, Callable[[Any], None]]] = ()
    causal: int = 0  # documents of a language on which experts are dropped, forced and kept; 0 for none
