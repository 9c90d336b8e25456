"""What a long stage says while it works. The stages speak; the command line decides how it looks."""

from typing import Protocol


class Progress(Protocol):
    """Receives the state of the running stage."""

    def stage(self, name: str, what: str) -> None:
        """Begin a stage."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say how far the running stage is; `note` holds figures such as loss or tokens/s."""

    def say(self, message: str) -> None:
        """Say one thing worth keeping on the screen."""


class Silent:
    """A Progress that says nothing."""

    def stage(self, name: str, what: str) -> None:
        """Ignore."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""
