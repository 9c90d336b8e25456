"""Fifty kills at moments nobody chose, of worker, parent or both, with one, two and eight workers."""

import time
from pathlib import Path

import numpy as np
import pytest

from kills import Kills, Victim

KILLS = 50
VICTIMS: tuple[Victim, ...] = ("worker", "parent", "both")


@pytest.mark.soak
def test_fifty_kills_leave_no_trace_in_the_corpus(tmp_path: Path) -> None:
    kills, draw = Kills(tmp_path), np.random.default_rng()
    seconds = {}
    for workers in (1, 2, 8):
        clock = time.monotonic()
        assert kills.start(f"whole-{workers}", workers).wait() == 0
        seconds[workers] = time.monotonic() - clock
    expected = kills.result("whole-1")
    assert kills.result("whole-2") == kills.result("whole-8") == expected
    killed, build = 0, 0
    while killed < KILLS:
        workers, victim = (1, 2, 8)[killed % 3], VICTIMS[killed // 3 % 3]
        until = time.monotonic() + draw.uniform(0.02, 0.98) * seconds[workers]
        if kills.kill(f"out-{build}", workers, victim, lambda until=until: time.monotonic() >= until):
            killed += 1
            if draw.random() < 0.3:  # or be killed again where it stands
                before = kills.finished(f"out-{build}")
                assert kills.start(f"out-{build}", workers).wait() == 0
                after = kills.finished(f"out-{build}")
                assert {name: after[name] for name in before} == before
                assert kills.result(f"out-{build}") == expected
                build += 1
        else:
            assert kills.result(f"out-{build}") == expected
            build += 1
    assert kills.start(f"out-{build}", 2).wait() == 0
    assert kills.result(f"out-{build}") == expected
