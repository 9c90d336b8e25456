"""Progress as people see it: plain lines in a pipe, one live line on a terminal."""

import io
import time
from contextlib import suppress

import pytest
from rich.console import Console

from polyclinic.console import BAR, END, ISOLATE, PLAIN_SECONDS, ConsoleProgress
from polyclinic.progress import Panel

HOSTILE = "[/x/y] [bold] [#f00]a[/] :smile: \\[b] 100%"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds of a clock that the test winds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_stage_in_a_pipe_is_its_name_its_bar_and_its_time(clock: list[float]) -> None:
    out = io.StringIO()
    with ConsoleProgress(out) as progress:
        progress.stage("corpus", "reading text")
        clock[0] += 7
        progress.advance(3, 4, "9 rows")
        clock[0] += 60
    filled = BAR * 3 // 4
    assert out.getvalue().splitlines() == [
        "corpus     reading text",
        f"corpus     [{'#' * filled}{'.' * (BAR - filled)}] 3/4  9 rows",
        "corpus     done in 67 s",
    ]


@pytest.mark.parametrize("total", [0, 1, 7, 1_000_000])
def test_the_bar_is_always_as_wide(total: int, clock: list[float]) -> None:
    for done in {0, total // 2, total}:
        out = io.StringIO()
        ConsoleProgress(out).advance(done, total)
        bars = [line[line.index("[") + 1 : line.index("]")] for line in out.getvalue().splitlines()]
        assert all(len(bar) == BAR and bar.count("#") == BAR * done // max(total, 1) for bar in bars)


def test_lines_in_a_pipe_keep_their_distance_and_the_last_is_always_there(clock: list[float]) -> None:
    out = io.StringIO()
    progress = ConsoleProgress(out)
    progress.stage("train", "training")
    for step in range(1, 101):
        clock[0] += PLAIN_SECONDS / 10
        progress.advance(step, 100)
    steps = [int(line.split()[-1].split("/")[0]) for line in out.getvalue().splitlines()[1:]]
    assert steps == [1, *range(11, 100, 10), 100]


@pytest.mark.parametrize("force", [False, True], ids=["pipe", "terminal"])
def test_what_looks_like_markup_is_printed_as_it_is(force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if force:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    progress = ConsoleProgress(out)
    progress.stage("corpus", HOSTILE)
    progress.advance(1, 1, HOSTILE)
    progress.say(HOSTILE)
    progress.close()
    assert out.getvalue().count(HOSTILE) >= (2 if force else 3)


def test_a_stage_that_failed_is_not_called_done(clock: list[float]) -> None:
    out = io.StringIO()
    with suppress(KeyError), ConsoleProgress(out) as progress:
        progress.stage("train", "training")
        raise KeyError
    assert "stopped in 0 s" in out.getvalue()
    assert "done" not in out.getvalue()


def test_a_new_stage_closes_the_last_and_closing_twice_says_nothing_more(clock: list[float]) -> None:
    out = io.StringIO()
    progress = ConsoleProgress(out)
    progress.stage("one", "a")
    progress.stage("two", "b")
    progress.close()
    said = out.getvalue()
    progress.close()
    assert said.splitlines() == ["one        a", "one        done in 0 s", "two        b", "two        done in 0 s"]
    assert out.getvalue() == said


def test_a_long_line_in_a_pipe_is_not_broken() -> None:
    out = io.StringIO()
    ConsoleProgress(out).say("word " * 99)
    assert len(out.getvalue().splitlines()) == 1


PANEL = Panel(
    [("step", "1,200"), ("loss", "3.21")],
    ("expert", "loss", "family"),
    [["0", "2.9", "Germanic"], ["1", "10.25", "العربية"], ["2", "3.1", "भारतीय [b]"], ["3", "-", "中文"]],
)


def test_figures_stand_under_the_live_line_until_the_stage_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    progress = ConsoleProgress(io.StringIO())
    progress.stage("train", "training")
    progress.show(PANEL)
    progress.advance(3, 4, "a note")
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(progress._live.get_renderable())
    first, head, titles, *rows = console.export_text().splitlines()
    assert first.rstrip().endswith("3/4")  # the note says nothing that the figures do not
    assert head.split() == ["step", "1,200", "loss", "3.21"]
    assert titles.split() == ["expert", "loss", "family"]
    plain = [row.replace(ISOLATE, "").replace(END, "").split(maxsplit=2) for row in rows]
    assert [[cell.strip() for cell in row] for row in plain] == PANEL.rows
    ends = {row.index(cells[1]) + len(cells[1]) for row, cells in zip(rows, PANEL.rows, strict=True)}
    assert len(ends) == 1  # numbers end below each other
    assert [row.count(ISOLATE) for row in rows] == [0, 1, 1, 1]
    progress.stage("next", "another")
    console.print(progress._live.get_renderable())
    assert console.export_text().strip() == "next       another"
    progress.close()


@pytest.mark.parametrize("width", [40, 60])
def test_nothing_live_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a terminal breaks by itself is drawn again below with every refresh."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    progress = ConsoleProgress(io.StringIO())
    progress.stage("train", "training " * 20)
    console = Console(file=io.StringIO(), width=width, record=True)
    for step in range(2):
        progress.advance(step, 4, "a note " * 20)
        console.print(progress._live.get_renderable(), crop=False)
        progress.show(PANEL._replace(figures=[("figure", "1 GB")] * 9))
    assert not progress._console.soft_wrap
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    assert sum(line.count("figure") for line in lines) == 9
    progress.close()


def test_figures_are_not_for_pipes() -> None:
    out = io.StringIO()
    progress = ConsoleProgress(out)
    progress.stage("train", "training")
    progress.show(PANEL)
    assert out.getvalue() == "train      training\n"
