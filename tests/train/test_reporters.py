"""Curves for other programs: each library reads back what the log says, and a missing one is named before training."""

import importlib.util
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic import journey
from polyclinic.errors import MissingDependencyError
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.runs import damaged, seal
from polyclinic.train import loop, reporters
from polyclinic.train.report import read_log
from polyclinic.train.reporters import reporting, scalars

LINES = [
    {"step": step, "loss": 3.0 / step, "gradient_norm": None, "languages": {"sw": {"loss": step, "tokens": 7}},
     "experts": {"1": [0.25, 0.75]}}
    for step in (2, 4)
]  # fmt: skip
NAMES = {"loss", "languages/sw/loss", "languages/sw/tokens", "experts/1/0", "experts/1/1"}


def test_numbers_are_named_by_their_path_and_what_is_none_is_left_out() -> None:
    assert scalars(LINES[0]) == {
        "loss": 1.5, "languages/sw/loss": 2.0, "languages/sw/tokens": 7.0, "experts/1/0": 0.25, "experts/1/1": 0.75,
    }  # fmt: skip


def test_tensorboard_reads_back_every_number_of_the_log(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = MoeTrainingSection(steps=4, batch_packs=2, log_every=2, threads=1, report_to=["tensorboard"])
    loop.fit(load_model(mixtures["qwen3"]), packed, settings, tmp_path, 0, Silent())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    log = read_log(tmp_path)
    assert len(log) == 2
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in log:
        for name, value in scalars(line).items():
            expected.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found == expected
    assert "router_entropy/2" in found


def test_trackio_keeps_the_numbers_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "database"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    with reporting(["trackio"], tmp_path, None) as report:
        for line in LINES:
            report(line)
    assert capsys.readouterr().out == ""
    with closing(sqlite3.connect(tmp_path / "database" / f"{reporters.PROJECT}.db")) as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    assert [step for step, _ in rows] == [line["step"] for line in LINES]
    for (_, values), line in zip(rows, LINES, strict=True):
        assert scalars(line).items() <= json.loads(values).items()


def test_wandb_writes_offline_into_the_folder_and_leaves_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with reporting(["wandb"], tmp_path, None) as report:
        for line in LINES:
            report(line)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (records,) = run.glob("*.wandb")
    data = records.read_bytes()
    assert [name for name in sorted(NAMES) if name.encode() not in data] == [], len(data)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    seal(tmp_path, {})
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert damaged(moved) is None


def test_a_missing_library_is_named_with_its_extra_before_anything_is_trained(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        reporters, "find_spec", lambda name: None if name == "wandb" else importlib.util.find_spec(name)
    )
    settings = MoeTrainingSection(steps=1, report_to=["wandb"])
    with pytest.raises(MissingDependencyError, match=r"pip install 'polyclinic\[wandb\]'") as caught:
        loop.fit(load_model(mixtures["qwen3"]), packed, settings, tmp_path, 0, Silent())
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    loop_of_train = {"steps": 1, "report_to": ["wandb"]}
    with pytest.raises(MissingDependencyError):
        journey.check(small.recipe(train=loop_of_train))
    base = small.recipe().base.model_dump(exclude_none=True)
    base["from_scratch"]["report_to"] = ["wandb"]
    with pytest.raises(MissingDependencyError):
        journey.check(small.recipe(base=base))
    journey.check(small.recipe())


def test_nothing_is_imported_unless_asked_for(tmp_path: Path) -> None:
    before = {name for name in reporters._OPENERS if name in sys.modules}
    with reporting([], tmp_path, None) as report:
        report(LINES[0])
    assert {name for name in reporters._OPENERS if name in sys.modules} == before
    assert list(tmp_path.iterdir()) == []
