"""One corpus, whoever builds it: processes, Ray, or the scripts of Slurm in the order of their submission."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyclinic.cli import main
from polyclinic.corpus.engine import ray_engine
from polyclinic.corpus.engine.ray_engine import Ray
from polyclinic.errors import MissingDependencyError
from polyclinic.runs import sha256_file

RECIPE = """
name: small
corpus:
  root: in
  languages: [en]
  held_out: 0.3
  texts: [{path: "*.jsonl", max_per_language: 30}, {starter: true, languages: [en]}]
  exams: [{starter: true, languages: [en]}]
base: {checkpoint: x}
train: {steps: 1}
"""
BUILD = ["corpus", "build", "recipe.yaml", "--out"]


@pytest.fixture
def home(tmp_path: Path, write_records: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where a recipe with four files is."""
    for name in "abcd":
        texts = [f"sentence {i} of file {name if i % 5 else 'every'}" for i in range(20)]
        write_records(tmp_path / f"in/{name}.jsonl", [{"language": "en", "text": text} for text in texts])
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpus(out: Path) -> dict[str, str]:
    files = sorted(p for p in (out / "corpus").rglob("*") if p.is_file())
    return {str(p.relative_to(out)): sha256_file(p) for p in files}


def slurm(home: Path, script: Path) -> list[str]:
    """Do what sbatch is handed, in its order, with bash; returns what was handed to it."""
    stand_in = home / "bin" / "sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@" >> "$LOG"\nwc -l < "$LOG"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "LOG": str(home / "log")}
    subprocess.run(["/bin/sh", str(script)], env=environment, check=True, capture_output=True)
    handed = (home / "log").read_text().splitlines()
    for line in handed:
        *options, name = shlex.split(line)
        array = next((o.partition("=")[2] for o in options if o.startswith("--array=")), "0-0%1")
        last = int(array.partition("%")[0].partition("-")[2])
        for number in range(last + 1):
            own = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}
            subprocess.run(["/bin/bash", str(script.parent / name)], env=own, check=True, capture_output=True)
    return handed


def test_the_scripts_of_slurm_give_the_bytes_of_a_local_build(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs of an array share the five shards."""
    monkeypatch.setattr("polyclinic.corpus.engine.slurm.MOST", 2)
    assert main([*BUILD, "local"]) == 0
    assert main([*BUILD, "jobs", "--set", "corpus.engine=slurm", "--set", "corpus.workers=3", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == said.err.count("corpus  ")  # nothing but progress, and none of the second
    script = Path(json.loads(said.out.partition("\n")[2])["submit"])
    assert not (home / "jobs/corpus").exists()
    handed = slurm(home, script)
    assert [line.split()[-1] for line in handed] == ["clean.sh", "decide.sh", "select.sh", "finish.sh"]
    assert ["--array=0-1%3" in line for line in handed] == [True, False, True, False]
    assert [f"--dependency=afterok:{n}" in line for n, line in enumerate(handed)] == [False, True, True, True]
    assert corpus(home / "jobs") == corpus(home / "local")
    assert main([*BUILD, "jobs"]) == 0  # which finds nothing to do


def test_a_job_that_comes_too_early_or_finds_another_input_says_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BUILD, "out", "--set", "corpus.engine=slurm"]) == 0
    shard = ["corpus", "shard", "recipe.yaml", "--out", "out", "--set", "corpus.engine=slurm", "--phase"]
    capsys.readouterr()
    for phase in ("decide", "select", "finish"):
        assert main([*shard, phase]) == 1
        assert "5 of 5 not done, first 000-00000-a; submit the clean jobs again" in capsys.readouterr().err
    assert main([*shard, "clean", "--index", "5", "--of", "5"]) == 2
    (home / "in/b.jsonl").write_text((home / "in/b.jsonl").read_text().replace("sentence 3", "sentence x"))
    assert main([*shard, "clean", "--index", "0", "--of", "5"]) == 0
    assert main([*shard, "clean", "--index", "1", "--of", "5"]) == 3
    assert "in/b.jsonl: has changed since the plan was made; run polyclinic corpus build" in capsys.readouterr().err
    assert main([*shard, "clean", "--set", "corpus.held_out=0.1"]) == 3
    assert "the plan of another recipe" in capsys.readouterr().err


def test_ray_gives_the_bytes_of_a_local_build(home: Path) -> None:
    """On a cluster of two workers, started for it; in a process of its own, which Ray leaves threads in."""
    pytest.importorskip("ray")
    assert main([*BUILD, "local"]) == 0
    command = [sys.executable, "-m", "polyclinic.cli", *BUILD, "ray", "--set", "corpus.engine=ray"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([*command, "--set", "corpus.workers=2", "--json"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert corpus(home / "ray") == corpus(home / "local")


def test_without_the_package_ray_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'polyclinic\[ray\]'"):
        Ray(2).__enter__()


class Cluster:
    """What of Ray decides where tasks go."""

    def __init__(self, running: bool) -> None:
        self.running, self.started, self.stopped = running, [], 0

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **options: Any) -> None:
        self.started.append(options)

    def shutdown(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize(("address", "local"), [(None, True), ("local", True), ("10.0.0.1:6379", False)])
def test_a_cluster_that_is_named_is_joined_and_else_one_of_our_size_is_started(
    monkeypatch: pytest.MonkeyPatch, address: str | None, local: bool
) -> None:
    cluster = Cluster(running=False)
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.delenv(ray_engine.ADDRESS, raising=False)
    if address:
        monkeypatch.setenv(ray_engine.ADDRESS, address)
    with Ray(3):
        assert cluster.stopped == 0
    (options,) = cluster.started
    assert options["log_to_driver"] is False
    assert (options.get("num_cpus"), options.get("include_dashboard")) == ((3, False) if local else (None, None))
    assert cluster.stopped == 1


def test_a_cluster_that_the_program_has_joined_is_used_and_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(running=True)
    monkeypatch.setitem(sys.modules, "ray", cluster)
    with Ray(3):
        pass
    assert (cluster.started, cluster.stopped) == ([], 0)
