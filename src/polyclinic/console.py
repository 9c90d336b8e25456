"""How progress looks: a live line on a terminal, plain lines when piped."""

import time
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 5.0  # between plain lines of one stage
BAR = 24


class ConsoleProgress:
    """A Progress for people: the newest state of the running stage, and what is worth keeping."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._stage, self._what = "", ""
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("done" if kind is None else "stopped")

    def stage(self, name: str, what: str) -> None:
        """Close the line of the last stage and begin another."""
        self.close()
        self._stage, self._what = name, what
        self._began, self._last = time.monotonic(), 0.0
        if self._console.is_terminal:
            self._live = Live(Text(f"{name:<10} {what}"), console=self._console, refresh_per_second=8)
            self._live.start()
        else:
            self._console.print(f"{name:<10} {what}")

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how far the stage is."""
        text = f"{self._stage:<10} {_bar(done, total)} {done:,}/{total:,}  {note}"
        if self._live is not None:
            self._live.update(Text(text))
        elif time.monotonic() - self._last >= PLAIN_SECONDS or done == total:
            self._last = time.monotonic()
            self._console.print(text.rstrip())

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(f"{'':<10} {message}")

    def close(self, how: str = "done") -> None:
        """End the running stage with its time."""
        if self._stage:
            seconds = time.monotonic() - self._began
            if self._live is not None:
                self._live.update(Text(f"{self._stage:<10} {self._what}: {how} in {seconds:.0f} s"))
                self._live.stop()
                self._live = None
            else:
                self._console.print(f"{self._stage:<10} {how} in {seconds:.0f} s")
            self._stage = ""


def _bar(done: int, total: int) -> str:
    full = BAR * done // max(total, 1)
    return "[" + "#" * full + "." * (BAR - full) + "]"
