"""Five of the moments at which a training may die; `make soak` takes every one of them."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from train import crash

KINDS = ("qwen2", "qwen3", "dense")


@pytest.fixture(scope="session")
def parents(mixtures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense model and mixtures that drop attention, so that random numbers are drawn in every step."""
    root = tmp_path_factory.mktemp("dropping")
    out = {}
    for kind, source in {**mixtures, "dense": mixtures["qwen3"].with_name("qwen3-dense")}.items():
        out[kind] = Path(shutil.copytree(source, root / kind))
        config = json.loads((source / "config.json").read_text("utf-8"))
        (out[kind] / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}), "utf-8")
    return out


@pytest.fixture(scope="session")
def wholes(parents: dict[str, Path], packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trainings that nothing stopped, each with the list of its touches."""
    root = tmp_path_factory.mktemp("undisturbed")
    for kind, folder in parents.items():
        assert crash.child(lambda kind=kind, folder=folder: crash.train(folder, packed, root / kind)) == 0
    return {kind: root / kind for kind in parents}


def touches(whole: Path) -> list[str]:
    return json.loads((whole / "touches.json").read_text())


def test_every_kind_of_touch_is_counted_and_an_undisturbed_training_can_be_repeated(
    parents: dict[str, Path], wholes: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    assert set(touches(wholes["qwen3"])) == {"fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "save_file"}
    assert crash.child(lambda: crash.train(parents["qwen3"], packed, tmp_path / "again")) == 0
    assert crash.result(tmp_path / "again") == crash.result(wholes["qwen3"])


@pytest.mark.parametrize("touch", ["save_file", "fsync", "replace", "rename", "unlink"])
def test_whoever_dies_at_a_touch_of_the_disk_ends_as_if_nothing_had_been(
    parents: dict[str, Path], wholes: dict[str, Path], packed: Path, tmp_path: Path, touch: str
) -> None:
    """The last of each kind: in the middle of the third save, before and behind its publishing, and in pruning."""
    names = touches(wholes["qwen3"])
    last = len(names) - names[::-1].index(touch)
    crash.survives(parents["qwen3"], packed, tmp_path / "run", last, wholes["qwen3"])


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_at_random_moments_leave_no_trace(
    parents: dict[str, Path], wholes: dict[str, Path], packed: Path, tmp_path: Path, kind: str
) -> None:
    clock = time.perf_counter()
    assert crash.child(lambda: crash.train(parents[kind], packed, tmp_path / "timed")) == 0
    seconds, draw = time.perf_counter() - clock, np.random.default_rng()
    kills = walks = 0
    while kills < 20:
        folder = tmp_path / f"walk-{walks}"
        if crash.killed_at_random(parents[kind], packed, folder, draw.uniform(0.05, 1.0) * seconds):
            kills += 1
            continue
        assert crash.result(folder) == crash.result(wholes[kind])
        walks += 1
    assert crash.child(lambda: crash.train(parents[kind], packed, tmp_path / f"walk-{walks}")) == 0
    assert crash.result(tmp_path / f"walk-{walks}") == crash.result(wholes[kind])


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_touch_of_the_disk_may_be_the_last(
    parents: dict[str, Path], wholes: dict[str, Path], packed: Path, tmp_path: Path, kind: str
) -> None:
    count = len(touches(wholes[kind]))
    for last in range(1, count + 1):
        crash.survives(parents[kind], packed, tmp_path / "run", last, wholes[kind])
        shutil.rmtree(tmp_path / "run")
    print(f"{kind}: {count} crash points, each resumed to the same weights and losses")  # noqa: T201
