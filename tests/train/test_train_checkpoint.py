"""Checkpoints of a running training: all of it comes back, or it does not count."""

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model
from polyclinic.train import checkpoint
from polyclinic.train.shards import Shards

FILES = (
    "manifest.json", "model-00000.safetensors", "optimizer-00000.safetensors", "generators-00000.safetensors",
    "state.json",
)  # fmt: skip
KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])


class Trained:
    """A model with optimiser and schedule that has made some steps."""

    def __init__(self, folder: Path, steps: int = 1) -> None:
        torch.manual_seed(0)
        self.model: PreTrainedModel = load_model(folder)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        tokens = torch.randint(self.model.config.vocab_size, (2, 9))
        self.model(input_ids=tokens, labels=tokens).loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def save(self, root: Path, step: int) -> Path:
        checkpoint.save(root, step, self.model, self.optimizer, self.scheduler, "{}")
        return checkpoint.folder_of(root, step)

    def load(self, folder: Path) -> None:
        checkpoint.load_weights(folder, self.model)
        checkpoint.load_optimizer(folder, self.model, self.optimizer, self.scheduler)
        checkpoint.load_generators(folder, 0)


def equal(a: Any, b: Any) -> bool:
    """Compare nested values, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.equal(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << (position % 8)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def trained(mixtures: dict[str, Path]) -> Trained:
    return Trained(mixtures["qwen3"])


@KINDS
def test_every_tensor_of_every_expert_comes_back(mixtures: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """The stock resume loses exactly these tensors and says nothing."""
    saved, fresh = Trained(mixtures[kind], steps=2), Trained(mixtures[kind], steps=0)
    experts = [name for name in saved.model.state_dict() if ".experts." in name]
    assert len(experts) == 4  # two sparse layers, two fused tensors each
    assert not any(saved.model.state_dict()[n].equal(fresh.model.state_dict()[n]) for n in experts)
    fresh.load(saved.save(tmp_path, 2))
    assert equal(dict(saved.model.state_dict()), dict(fresh.model.state_dict()))


@KINDS
def test_training_goes_on_bit_for_bit(mixtures: dict[str, Path], tmp_path: Path, kind: str) -> None:
    saved, fresh = Trained(mixtures[kind], steps=3), Trained(mixtures[kind], steps=1)
    fresh.load(saved.save(tmp_path, 3))
    assert equal(saved.optimizer.state_dict(), fresh.optimizer.state_dict())
    generators = torch.get_rng_state()
    saved.step()
    torch.set_rng_state(generators)
    fresh.step()
    assert equal(dict(saved.model.state_dict()), dict(fresh.model.state_dict()))
    assert saved.scheduler.get_last_lr() == fresh.scheduler.get_last_lr() == [1e-2 / 5]


def test_all_three_generators_go_on_where_they_stood(trained: Trained, tmp_path: Path) -> None:
    random.seed(1)
    random.gauss(0, 1)  # leaves a second value behind
    np.random.seed(1)
    np.random.standard_normal()
    folder = trained.save(tmp_path, 1)

    def draws() -> list[float]:
        ours = [random.random(), random.gauss(0, 1)]  # noqa: S311
        return [torch.rand(1).item(), *ours, np.random.random(), np.random.standard_normal()]

    expected = draws()
    draws()
    checkpoint.load_generators(folder, 0)
    assert draws() == expected


def test_a_tied_embedding_is_stored_once_and_stays_tied(trained: Trained, tmp_path: Path) -> None:
    folder = trained.save(tmp_path, 1)
    names = {"model.embed_tokens.weight", "lm_head.weight"}
    assert len(names & set(load_file(folder / "model-00000.safetensors"))) == 1
    trained.load(folder)
    assert trained.model.lm_head.weight is trained.model.get_input_embeddings().weight


def without_one(weights: dict[str, Any], name: str) -> None:
    del weights[name]


def renamed(weights: dict[str, Any], name: str) -> None:
    weights[name.replace("experts.gate_up_proj", "experts.0.gate_proj.weight")] = weights.pop(name)


def with_another(weights: dict[str, Any], name: str) -> None:
    weights[f"{name}.more"] = weights[name].clone()


def reshaped(weights: dict[str, Any], name: str) -> None:
    weights[name] = weights[name][:-1].clone()


def rewrite(folder: Path, change: Any) -> None:
    """Change the stored weights, keeping what their header says."""
    weights = load_file(folder / "model-00000.safetensors")
    change(weights, "model.layers.1.mlp.experts.gate_up_proj")
    first_rows = {"first_rows": json.dumps(dict.fromkeys(weights, 0))}
    save_file(weights, folder / "model-00000.safetensors", first_rows)


@pytest.mark.parametrize("change", [without_one, renamed, with_another, reshaped])
def test_weights_that_do_not_match_by_name_and_shape_are_refused(trained: Trained, tmp_path: Path, change: Any) -> None:
    folder = trained.save(tmp_path, 1)
    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(folder, trained.model)
    assert "experts" in str(caught.value)
    assert "\n" not in str(caught.value)


@KINDS
def test_a_loader_that_let_names_go_by_would_still_be_caught(
    mixtures: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As load_state_dict(strict=False) does: what matches is loaded, the experts are not, nothing is said."""

    def leave_the_experts(self: Shards, name: str, like: torch.Tensor) -> torch.Tensor:
        return like.clone() if ".experts." in name else read(self, name, like)

    read, saved, fresh = Shards.read, Trained(mixtures[kind], steps=2), Trained(mixtures[kind], steps=0)
    folder = saved.save(tmp_path, 2)
    stock = checkpoint._check_arrived
    monkeypatch.setattr(Shards, "read", leave_the_experts)

    def check(*arguments: Any) -> None:
        monkeypatch.setattr(Shards, "read", read)
        stock(*arguments)

    monkeypatch.setattr(checkpoint, "_check_arrived", check)
    with pytest.raises(CheckpointError, match=r"experts\.\w+ did not arrive as it was stored"):
        fresh.load(folder)


@pytest.mark.parametrize("name", [*FILES, "trainer_state.json"])
def test_one_flipped_bit_anywhere_hands_over_to_the_older_one(trained: Trained, tmp_path: Path, name: str) -> None:
    older, newer = trained.save(tmp_path, 1), trained.save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == (newer, [])
    untouched = (newer / name).read_bytes()
    draw = np.random.default_rng(list(name.encode()))
    for _ in range(6):
        flip_bit(newer / name, int(draw.integers(len(untouched) - 1)))
        assert checkpoint.latest(tmp_path) == (older, [newer])
        (newer / name).write_bytes(untouched)


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_a_file_missing_does_not_count(trained: Trained, tmp_path: Path, name: str) -> None:
    folder = trained.save(tmp_path, 1)
    (folder / name).unlink()
    assert checkpoint.latest(tmp_path) == (None, [folder])


def test_a_checkpoint_cut_off_while_writing_does_not_count(trained: Trained, tmp_path: Path) -> None:
    folder = trained.save(tmp_path, 1)
    folder.rename(tmp_path / ".tmp-step-00000001")
    assert checkpoint.latest(tmp_path) == (None, [])
    assert checkpoint.latest(tmp_path / "nothing") == (None, [])


def test_what_a_cut_off_save_left_is_not_mixed_in(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-00000001").mkdir()
    (tmp_path / ".tmp-step-00000001" / "stray.bin").write_bytes(b"left")
    assert {p.name for p in trained.save(tmp_path, 1).iterdir()} == {*FILES, "trainer_state.json"}


def test_the_two_newest_are_kept(trained: Trained, tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        trained.save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000010", "step-00000011"]
    assert (tmp_path / "latest").read_text() == "step-00000011\n"


def test_saving_a_step_again_replaces_it(trained: Trained, tmp_path: Path) -> None:
    folder = trained.save(tmp_path, 1)
    flip_bit(folder / "model-00000.safetensors", -1)
    trained.save(tmp_path, 1)
    assert checkpoint.latest(tmp_path) == (folder, [])
    assert {p.name for p in tmp_path.iterdir()} == {folder.name, "latest"}


def test_nothing_is_pickled(trained: Trained, tmp_path: Path) -> None:
    for path in trained.save(tmp_path, 1).iterdir():
        if path.suffix == ".safetensors":
            load_file(path)
        else:
            json.loads(path.read_text("utf-8"))


def test_saving_leaves_the_training_as_it_was(trained: Trained, tmp_path: Path) -> None:
    before = deepcopy((dict(trained.model.state_dict()), trained.optimizer.state_dict(), torch.get_rng_state()))
    trained.save(tmp_path, 1)
    assert equal(before, (dict(trained.model.state_dict()), trained.optimizer.state_dict(), torch.get_rng_state()))
