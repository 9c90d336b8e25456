"""How progress looks: a live line on a terminal, plain lines when piped."""

import time
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from polyclinic.progress import Panel

PLAIN_SECONDS = 5.0  # between plain lines of one stage
BAR = 24
ONE_LINE: Any = {"no_wrap": True, "overflow": "ellipsis"}
ISOLATE, END = "\u2068", "\u2069"  # a name written from the right must not pull the figures beside it along


class ConsoleProgress:
    """A Progress for people: the newest state of the running stage, and what is worth keeping."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._stage, self._what = "", ""
        self._line = Text()
        self._panel: Group | None = None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("done" if kind is None else "stopped")

    def stage(self, name: str, what: str) -> None:
        """Close the line of the last stage and begin another."""
        self.close()
        self._stage, self._what = name, what
        self._line, self._panel = Text(f"{name:<10} {what}", **ONE_LINE), None
        self._began, self._last = time.monotonic(), 0.0
        if self._console.is_terminal:
            self._live = Live(self._line, console=self._console, refresh_per_second=8)
            self._live.start()
        else:
            self._console.print(f"{name:<10} {what}", soft_wrap=True)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how far the stage is."""
        text = f"{self._stage:<10} {_bar(done, total)} {done:,}/{total:,}  {note}"
        if self._live is not None:
            # What a panel shows is not told twice; a line that a terminal breaks would be drawn again and again.
            self._line = Text(text if self._panel is None else text.removesuffix(note), **ONE_LINE)
            self._refresh()
        elif time.monotonic() - self._last >= PLAIN_SECONDS or done == total:
            self._last = time.monotonic()
            self._console.print(text.rstrip(), soft_wrap=True)

    def show(self, panel: Panel) -> None:
        """Put figures under the live line; in a pipe there is none."""
        if self._live is not None:
            self._panel = _drawn(panel)
            self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._line if self._panel is None else Group(self._line, self._panel))

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(f"{'':<10} {message}", soft_wrap=True)

    def close(self, how: str = "done") -> None:
        """End the running stage with its time."""
        if self._stage:
            seconds = time.monotonic() - self._began
            if self._live is not None:
                self._live.update(Text(f"{self._stage:<10} {self._what}: {how} in {seconds:.0f} s"))
                self._live.stop()
                self._live = None
            else:
                self._console.print(f"{self._stage:<10} {how} in {seconds:.0f} s", soft_wrap=True)
            self._stage = ""


def _bar(done: int, total: int) -> str:
    full = BAR * done // max(total, 1)
    return "[" + "#" * full + "." * (BAR - full) + "]"


def _drawn(panel: Panel) -> Group:
    """Lay out a panel: its figures in a line, then its rows, numbers to the right and a text behind them.

    The text comes last and nothing is put behind it, not even spaces: terminals differ in how wide
    they draw a script, and a line that is wider than thought breaks and is drawn again below.
    """
    pairs = (Text.assemble((name, "dim"), " ", (value, "bold")) for name, value in panel.figures)
    widths = [max(map(len, column)) for column in zip(panel.columns, *panel.rows, strict=True)][:-1]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)), _isolated(name)])
        for *cells, name in (panel.columns, *panel.rows)
    ]
    return Group(Text("  ").join(pairs), *(Text(line, "dim" if line is lines[0] else "", **ONE_LINE) for line in lines))


def _isolated(name: str) -> str:
    return name if name.isascii() else f"{ISOLATE}{name}{END}"
