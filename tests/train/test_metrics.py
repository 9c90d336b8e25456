"""Sums of the log: families out of languages, and several processes as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import small
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection, TrainingSection
from polyclinic.train import loop
from polyclinic.train.metrics import family_losses, macro
from polyclinic.train.packs import Packs
from polyclinic.train.report import read_log

TWO = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from polyclinic.moe.watch import RouterWatch, over_processes
from polyclinic.train.metrics import LanguageLoss

root, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=2)
rows = json.loads((root / "rows.json").read_text())[rank]
sums, watch = LanguageLoss(["a", "b", "c"]), RouterWatch([0, 1, 1])
ids, losses, logits = (torch.tensor([row[i] for row in rows]) for i in range(3))
sums.add(losses, ids, torch.ones_like(ids, dtype=torch.bool))
watch.add(0, logits, logits.softmax(-1), torch.ones_like(ids, dtype=torch.bool), ids, 1)
mine = torch.tensor([float(rank)])
largest = over_processes(mine, largest=True).item()
out = {"losses": sums.take(), "figures": watch.take(), "largest": largest, "mine": mine.item()}
(root / f"{rank}.json").write_text(json.dumps(out))
dist.destroy_process_group()
"""
ROWS = [
    [[0, 1.0, [2.0, 0.0]], [1, 4.0, [1.0, 0.0]]],
    [[1, 2.0, [0.0, 3.0]], [1, 6.0, [0.0, 0.0]], [0, 2.0, [0.0, 1.0]]],
]


def test_two_processes_say_what_one_with_all_their_tokens_would_say(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    started = [subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path), str(rank)]) for rank in (0, 1)]
    assert [process.wait(120) for process in started] == [0, 0]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0]["losses"] == told[1]["losses"] == {
        "a": {"loss": 1.5, "tokens": 2}, "b": {"loss": 4.0, "tokens": 3},
    }  # fmt: skip
    assert told[0]["figures"] == told[1]["figures"]
    ((entropy, _, own),) = told[0]["figures"]
    assert 0 < entropy < 0.694
    assert own == {"0": 0.5, "1": pytest.approx(1 / 3)}  # ties go to the first expert
    assert [one["largest"] for one in told] == [1.0, 1.0]
    assert [one["mine"] for one in told] == [0.0, 1.0]


def test_a_family_is_the_mean_over_tokens_and_the_macro_average_over_languages() -> None:
    rows = {"da": {"loss": 2.0, "tokens": 10}, "en": {"loss": 7.0, "tokens": 4}, "no": {"loss": 3.0, "tokens": 30}}
    assert family_losses(rows, {"da": 3, "en": 0, "no": 3}) == {
        "0": {"loss": 7.0, "tokens": 4}, "3": {"loss": pytest.approx(110 / 40), "tokens": 40},
    }  # fmt: skip
    assert macro(rows) == 4.0


@pytest.fixture(scope="module")
def log(mixtures: dict[str, Path], packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with a line for every step."""
    folder = tmp_path_factory.mktemp("logged")
    settings = MoeTrainingSection(steps=4, batch_packs=2, log_every=1, threads=1)
    loop.fit(load_model(mixtures["qwen3"]), packed, settings, folder, 0, Silent())
    return folder


def test_a_line_holds_families_and_router_figures_of_each_sparse_layer(log: Path, packed: Path) -> None:
    experts = {str(expert) for expert in Packs(packed).expert_of.values()}
    assert len(experts) == len(small.LANGUAGES)
    for line in read_log(log):
        assert line["families"] == family_losses(line["languages"], Packs(packed).expert_of)
        assert set(line["families"]) <= experts
        for name in ("router_entropy", "z", "own_expert"):
            assert set(line[name]) == {"1", "2"}
        assert all(0 < entropy < 1.946 for entropy in line["router_entropy"].values())  # of seven experts: ln 7
        assert all(z > 0 for z in line["z"].values())
        assert all(set(own) == set(line["families"]) for own in line["own_expert"].values())


def test_what_the_machine_did_stands_apart_from_what_can_be_repeated(log: Path) -> None:
    for line in read_log(log):
        assert set(line["machine"]) == {"tokens_per_second", "tflops", "mfu", "memory_gb"}
        assert all(value > 0 for value in line["machine"].values())
        assert 0.05 < line["machine"]["memory_gb"] < 64
        assert line["machine"]["mfu"] < 1.5


def test_a_dense_base_has_families_and_no_router(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    model = load_model(mixtures["qwen3"].with_name("qwen3-dense"))
    loop.fit(model, packed, TrainingSection(steps=1, threads=1), tmp_path, 0, Silent())
    (line,) = read_log(tmp_path)
    assert line["families"]
    assert not {"experts", "router_entropy", "z", "own_expert"} & set(line)
