"""What a long stage says while it works. The stages speak; the command line decides how it looks."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Panel(NamedTuple):
    """Figures for a person who is watching: some by name, and a table whose last column is text."""

    figures: Sequence[tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Progress(Protocol):
    """Receives the state of the running stage."""

    def stage(self, name: str, what: str) -> None:
        """Begin a stage."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say how far the running stage is; `note` holds figures such as loss or tokens/s."""

    def show(self, panel: Panel) -> None:
        """Give the newest figures of the running stage, to stand until the next."""

    def say(self, message: str) -> None:
        """Say one thing worth keeping on the screen."""


class Silent:
    """A Progress that says nothing."""

    def stage(self, name: str, what: str) -> None:
        """Ignore."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Ignore."""

    def show(self, panel: Panel) -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""
