"""Two processes: DDP has the gradients, and FSDP2 makes the steps, of one process on the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from moe import two_processes
from moe.two_processes import STEPS, attached, balance_of, batch, descend, half
from polyclinic.moe.checkpoint import load_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-processes")


@pytest.fixture
def left(mixture: Any, root: Path) -> Path:
    """Run both processes once, over models of both kinds, and return the folder with what they left."""
    if not (root / "qwen2").is_dir():
        for kind in ("qwen2", "qwen3"):
            mixture(kind).save_pretrained(root / kind)
        command = [sys.executable, two_processes.__file__, str(root)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running = [subprocess.Popen([*command, rank], env=environment) for rank in ("0", "1")]
        try:
            assert [process.wait(timeout=200) for process in running] == [0, 0]
        finally:
            for process in running:
                process.kill()
    return root


def near(ours: Tensor, theirs: Tensor) -> bool:
    """Say whether two tensors differ by no more than rounding of the largest entry."""
    return bool((ours - theirs).abs().max() <= 2e-6 * theirs.abs().max())


def mean_of_halves(model: Any, values: dict[str, Tensor]) -> Tensor:
    """Return the loss of one process: balance losses are taken over each process's own tokens."""
    losses: Tensor = sum(model(**half(values, rank)).loss for rank in (0, 1))
    return losses / 2


@pytest.mark.parametrize("name", ["plain", "z"])
def test_ddp_has_the_gradients_of_one_process_on_the_joined_batch(left: Path, kind: str, name: str) -> None:
    balance = balance_of(name)
    model = attached(left / kind, balance)
    model(**batch()).loss.backward()
    ours = load_file(left / f"{kind}-ddp-{name}.safetensors")
    assert ours.pop("loads").equal(balance.loads.take())
    theirs = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    assert [n for n in theirs if not near(ours[n], theirs[n])] == []


def test_ddp_with_all_losses_and_checkpointing_has_the_mean_of_both_halves(left: Path, kind: str) -> None:
    balance = balance_of("all")
    balance.load_balance, balance.z_loss = balance.load_balance / 2, balance.z_loss / 2  # two forwards, mean wanted
    model = attached(left / kind, balance)
    mean_of_halves(model, batch()).backward()
    ours = load_file(left / f"{kind}-ddp-all.safetensors")
    assert ours.pop("loads").equal(balance.loads.take())
    theirs = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert [n for n in theirs if not near(ours[n], theirs[n])] == []


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fsdp_trains_gathers_and_saves_the_checkpoint_of_one_process(
    left: Path, kind: str, checkpointing: bool
) -> None:
    balance = balance_of("all")
    balance.load_balance, balance.z_loss = balance.load_balance / 2, balance.z_loss / 2
    model = attached(left / kind, balance)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    optimizer = descend(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        mean_of_halves(model, batch(step)).backward()
        optimizer.step()
    reloaded = load_model(left / f"{kind}-fsdp-{checkpointing}").state_dict()
    assert list(reloaded) == list(before)
    for name, tensor in model.state_dict().items():
        if tensor.numel():
            assert near(reloaded[name], tensor), name
    trained = ("gate.weight", "experts.gate_up_proj", "experts.down_proj")
    for name in (f"model.layers.{layer}.mlp.{part}" for layer in (1, 2) for part in trained):
        assert not near(reloaded[name], before[name]), name


def test_mixed_precision_neither_casts_the_bias_nor_counts_a_pick_twice(left: Path, kind: str) -> None:
    loads = load_file(left / f"{kind}-half.safetensors")["loads"]
    assert loads.sum((1, 2)).tolist() == [batch()["input_ids"].numel() * 2] * 2
