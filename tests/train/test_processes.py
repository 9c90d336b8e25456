"""Two real processes train what one does, in shards or whole, and either goes on from what the other saved."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

import small
from polyclinic.errors import UsageError
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.runs import CHECKPOINTS
from polyclinic.train import distributed
from polyclinic.train.report import read_log
from polyclinic.train.run import train_mixture
from train import processes

STEPS, EVERY = 4, 2
KEYS: dict[str, Any] = {
    "steps": STEPS, "accumulate": 2, "batch_packs": 2, "save_every": EVERY, "log_every": 1, "threads": 1, "keep": 9,
    "learning_rate": 0.005, "load_balance": 0.01, "bias_balance": 0.01,
}  # fmt: skip
ALONE: dict[str, Any] = {**KEYS, "routing": "language", "load_balance": 0.0, "bias_balance": 0.0}
KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
FORMS = ("ddp", "fsdp")
FORM = pytest.mark.parametrize("form", FORMS)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def half_done(folder: Path, finished: Path) -> Path:
    """Lay out a folder as a training leaves it that was killed behind its first checkpoint."""
    name = f"step-{EVERY:08d}"
    shutil.copytree(finished / CHECKPOINTS / name, folder / CHECKPOINTS / name)
    shutil.copyfile(finished / "log.jsonl", folder / "log.jsonl")
    return folder


@pytest.fixture(scope="session")
def one(mixtures: dict[str, Path], packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process made of the whole."""
    root = tmp_path_factory.mktemp("one")
    for kind, mixture in mixtures.items():
        (root / kind).mkdir()
        train_mixture(MoeTrainingSection(**KEYS), mixture, packed, root / kind, 0, Silent())
    return {kind: root / kind for kind in mixtures}


@pytest.fixture(scope="session")
def two(
    one: dict[str, Path],
    mixtures: dict[str, Path],
    vocabulary: Path,
    packed: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two processes made: of the whole, of what one had begun, and of text of a single family."""
    root = tmp_path_factory.mktemp("two")
    chinese = small.packs(root / "chinese", vocabulary, languages=["zh"])
    cases: list[tuple[Path, Path, Path, dict[str, Any]]] = []
    for form in FORMS:
        for kind, mixture in mixtures.items():
            cases.append((mixture, packed, root / f"{kind}-{form}", KEYS | {"parallel": form}))
        goes_on = half_done(root / f"goes-on-{form}", one["qwen3"])
        cases.append((mixtures["qwen3"], packed, goes_on, KEYS | {"parallel": form}))
        cases.append((mixtures["qwen3"], chinese, root / f"chinese-{form}", ALONE | {"parallel": form}))
    even = root / "fifty-experts"
    small.mixture(even, mixtures["qwen3"].with_name("qwen3-dense"), families="languages")
    by_language = small.packs(root / "by-language", vocabulary, families="languages")
    (root / "dealt-alone").mkdir()
    train_mixture(MoeTrainingSection(**KEYS), even, by_language, root / "dealt-alone", 0, Silent())
    cases.append((even, by_language, root / "dealt-out", KEYS | {"parallel": "experts"}))
    for _, _, out, _ in cases:
        out.mkdir(exist_ok=True)
    (root / "cases.json").write_text(json.dumps(cases, default=str))
    command = [*TORCHRUN, processes.__file__, str(root / "cases.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def assert_same(ours: Path, theirs: Path, loss: float = 1e-5) -> None:
    """Step by step the same text and loss, and at the end the same weights, to the rounding of sums."""
    for one, two in zip(read_log(ours), read_log(theirs), strict=True):
        assert one["step"] == two["step"]
        assert one["loss"] == pytest.approx(two["loss"], rel=loss)
        assert {c: v["tokens"] for c, v in one["languages"].items()} == {
            c: v["tokens"] for c, v in two["languages"].items()
        }
        for code, value in one["languages"].items():
            assert value["loss"] == pytest.approx(two["languages"][code]["loss"], rel=loss)
        assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)
    first, second = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if tensor.numel():
            assert (tensor - second[name]).abs().max() <= 1e-4, name


@KINDS
@FORM
def test_two_processes_train_what_one_does(one: dict[str, Path], two: Path, kind: str, form: str) -> None:
    assert_same(two / f"{kind}-{form}", one[kind])


def test_experts_dealt_out_train_as_those_of_one_process(two: Path) -> None:
    """Fifty, twenty-five in each process: tokens travel to their experts, and rows are saved where they are."""
    assert_same(two / "dealt-out", two / "dealt-alone")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    for path, first in zip(
        sorted((two / "dealt-out" / CHECKPOINTS / "step-00000004").glob("model-*")), (0, 25), strict=True
    ):
        with safe_open(path, "pt") as file:
            assert file.get_slice(name).get_shape()[0] == 25
            assert json.loads(file.metadata()["first_rows"])[name] == first


@FORM
def test_two_processes_go_on_from_what_one_saved(one: dict[str, Path], two: Path, form: str) -> None:
    assert (two / f"goes-on-{form}" / CHECKPOINTS / f"step-{STEPS:08d}" / "generators-00001.safetensors").is_file()
    assert_same(two / f"goes-on-{form}", one["qwen3"])


@KINDS
@FORM
def test_one_process_goes_on_from_what_two_saved(
    mixtures: dict[str, Path], packed: Path, one: dict[str, Path], two: Path, tmp_path: Path, kind: str, form: str
) -> None:
    folder = half_done(tmp_path / "run", two / f"{kind}-{form}")
    facts = train_mixture(MoeTrainingSection(**KEYS), mixtures[kind], packed, folder, 0, Silent())
    assert facts["resumed"]
    assert_same(folder, one[kind])


@KINDS
@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_in_shards_each_process_writes_its_own_rows_and_no_others(two: Path, kind: str, part: str) -> None:
    """Together they are every row of every tensor once; none holds the whole optimiser."""
    paths = sorted((two / f"{kind}-fsdp" / CHECKPOINTS / f"step-{STEPS:08d}").glob(f"{part}-*.safetensors"))
    sizes = [path.stat().st_size for path in paths]
    assert len(paths) == 2
    assert max(sizes) < 0.6 * sum(sizes)
    spans: dict[str, list[tuple[int, int]]] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            first_rows = json.loads(file.metadata()["first_rows"])
            for name in file.keys():  # noqa: SIM118
                shape = file.get_slice(name).get_shape()
                if shape:
                    spans.setdefault(name, []).append((first_rows[name], first_rows[name] + shape[0]))
    assert len(spans) > 20
    for name, pieces in spans.items():
        begins, ends = zip(*sorted(pieces), strict=True)
        assert begins == (0, *ends[:-1]), name


@FORM
def test_text_of_one_family_alone_trains_on_two_processes(two: Path, form: str) -> None:
    """Idle experts hang other trainers: a gradient that never comes is waited for."""
    log = read_log(two / f"chinese-{form}")
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert {code for line in log for code in line["languages"]} == {"zh"}
    for line in log:
        assert all(sorted(shares)[-2:] == [0.0, 1.0] for shares in line["experts"].values())


def test_a_step_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 4)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    assert distributed.shared_out(8) == 2
    with pytest.raises(UsageError, match="a step of 6 batches cannot be shared out among 4 processes"):
        distributed.shared_out(6)


def test_experts_that_cannot_be_dealt_out_are_refused(
    mixtures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    with pytest.raises(UsageError, match="7 experts cannot be dealt out among 2 processes"):
        distributed.spread(load_model(mixtures["qwen3"]), by_expert=True)


def under_torchrun(mixture: Path, packed: Path, out: Path, accumulate: int) -> subprocess.CompletedProcess[str]:
    argv = ["-m", "polyclinic.cli", "train", "run", str(mixture), "--packs", str(packed), "--out", str(out)]
    keys = ["batch_packs=1", "threads=1", "parallel=fsdp", f"accumulate={accumulate}"]
    options = ["--steps", "2", *(word for key in keys for word in ("--set", key))]
    return subprocess.run(
        [*TORCHRUN, *argv, *options], env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )


def test_the_command_under_torchrun_ends_well(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    done = under_torchrun(mixtures["qwen3"], packed, tmp_path / "run", accumulate=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"checkpoint {tmp_path / 'run' / 'train'}"]


@pytest.mark.soak
def test_an_error_under_torchrun_is_one_line(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    refused = under_torchrun(mixtures["qwen3"], packed, tmp_path / "run", accumulate=3)
    assert refused.returncode == 1
    what = "error: train.accumulate: a step of 3 batches cannot be shared out among 2 processes; give a multiple of 2"
    assert [line for line in refused.stderr.splitlines() if line.startswith("error:")] == [what]
