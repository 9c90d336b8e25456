"""Progress as people see it: plain lines in a pipe, one live line on a terminal."""

import io
import time
from contextlib import suppress

import pytest

from polyclinic.console import BAR, PLAIN_SECONDS, ConsoleProgress

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
