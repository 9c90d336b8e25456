"""What is said while shards are made: how many, how fast, how long still."""

import pytest

from polyclinic.corpus.engine import pace
from polyclinic.corpus.engine.executor import Attempt
from polyclinic.corpus.engine.pace import Pace, shown
from polyclinic.progress import Silent


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str]] = []

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.lines.append((done, total, note))


def test_rate_and_time_left_count_what_is_done_now_and_not_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 100.0, 110.0, 120.0, 140.0])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    heard = Heard()
    report = Pace(heard, "cleaned", [50_000_000, 20_000_000, 10_000_000, 70_000_000])
    for number, did in ((0, False), (2, True), (1, True), (3, True)):
        report(number, Attempt({}, did))
    assert heard.lines == [
        (1, 4, "cleaned"),
        (2, 4, "cleaned, 1.0 MB/s, 2 min left"),  # 90 MB at 1 MB a second
        (3, 4, "cleaned, 1.5 MB/s, 47 s left"),  # 70 MB at 1.5
        (4, 4, "cleaned, 2.5 MB/s"),
    ]


def test_a_time_is_said_in_one_unit() -> None:
    assert [shown(s) for s in (0.4, 59, 61, 5399, 5400, 36000)] == ["0 s", "59 s", "1 min", "90 min", "1.5 h", "10.0 h"]
