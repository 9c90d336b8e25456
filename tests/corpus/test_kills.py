"""Five kills in one folder: what is finished stays, nothing runs on, and the bytes are those of a build left alone."""

from pathlib import Path

import numpy as np
import pytest

from kills import FILES, Kills, Victim

PLAN: list[tuple[int, Victim]] = [(1, "parent"), (2, "worker"), (2, "both"), (2, "parent"), (1, "parent")]


def test_five_kills_leave_no_trace_in_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills, draw = Kills(tmp_path), np.random.default_rng()
    steps = 2 * FILES // len(PLAN)
    for number, (workers, victim) in enumerate(PLAN):
        least = number * steps + int(draw.integers(1, steps))
        assert kills.kill("out", workers, victim, lambda least=least: len(kills.finished("out")) >= least)
    before = kills.finished("out")
    assert kills.start("out", 1).wait() == 0
    after = kills.finished("out")
    assert {name: after[name] for name in before} == before
    assert kills.begun("out") == []
    kills.build_here("whole", monkeypatch)
    assert kills.result("out") == kills.result("whole")
    assert len(after) == 2 * FILES + 2  # the index of exams, and what was decided
