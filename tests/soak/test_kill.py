"""Twenty kills at moments nobody chose: each run goes on, and ends with the weights of one never stopped."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import small
from polyclinic.train.report import read_log

KILLS = 20
STEPS, EVERY = 40, 5


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The small recipe with longer training, so that many kills fall into it."""
    values = small.recipe().model_dump(exclude_unset=True)
    longer = {"steps": STEPS, "save_every": EVERY}
    values["train"] |= longer
    values["base"]["from_scratch"] |= longer
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def started(recipe: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "polyclinic.cli", "run", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(recipe: Path, out: Path, after_seconds: float) -> bool:
    """Walk, and kill the walk if it is still on after some seconds; says whether it was."""
    process = started(recipe, out)
    try:
        assert process.wait(after_seconds) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        return True
    return False


def result(out: Path) -> dict[str, object]:
    """Return digests of vocabulary and weights, and the logs without speeds."""
    names = ("tokenizer/tokenizer.json", "base/model.safetensors", "train/model.safetensors")
    found: dict[str, object] = {n: hashlib.sha256((out / n).read_bytes()).hexdigest() for n in names}
    for step in ("base", "train"):
        found[step] = [{k: v for k, v in line.items() if k != "machine"} for line in read_log(out / step)]
    return found


@pytest.mark.soak
def test_twenty_kills_leave_no_trace_in_the_weights(recipe: Path, tmp_path: Path) -> None:
    clock = time.perf_counter()
    assert started(recipe, tmp_path / "whole").wait() == 0
    seconds = time.perf_counter() - clock
    expected = result(tmp_path / "whole")
    draw, kills, walks = np.random.default_rng(), 0, 0
    while kills < KILLS:
        if killed(recipe, tmp_path / f"walk-{walks}", draw.uniform(0.1, 0.9) * seconds):
            kills += 1
        else:
            assert result(tmp_path / f"walk-{walks}") == expected
            walks += 1
    assert started(recipe, tmp_path / f"walk-{walks}").wait() == 0
    assert result(tmp_path / f"walk-{walks}") == expected
    assert (tmp_path / f"walk-{walks}" / "report.html").is_file()
