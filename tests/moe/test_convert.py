"""Dense tensors into a native mixture: copies where there is a parent, seeded draws where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from polyclinic.errors import CheckpointError
from polyclinic.moe import convert
from polyclinic.moe.checkpoint import read_config, tensor_files
from polyclinic.moe.convert import Mixture, plan_tensors, write_tensors
from polyclinic.runs import read_json

SPARSE = (1, 2)
FFN = ("gate_proj", "up_proj", "down_proj")


def mixture_of(kind: str, noise: float = 0.0, seed: int = 0, num_experts: int = 5) -> Mixture:
    return Mixture(SPARSE, num_experts, noise, kind == "qwen2", seed)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.fixture
def parent(kind: str, dense: Any, tmp_path: Path) -> Path:
    dense(kind).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def write(parent: Path, name: str, mixture: Mixture) -> Path:
    out = parent.with_name(name)
    out.mkdir()
    write_tensors(plan_tensors(parent, read_config(parent), mixture), parent, out, mixture.seed)
    return out


def bits(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_plan_is_what_the_stock_class_saves(
    kind: str, dense: Any, mixture: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    dense(kind).to(dtype).save_pretrained(tmp_path / "dense")
    mixture(kind).to(dtype).save_pretrained(tmp_path / "stock")
    planned = plan_tensors(tmp_path / "dense", read_config(tmp_path / "dense"), mixture_of(kind))
    stock = tensors_of(tmp_path / "stock")
    assert {p.name: (p.shape, p.dtype) for p in planned} == {n: (tuple(t.shape), t.dtype) for n, t in stock.items()}
    assert [p.num_bytes for p in planned] == [stock[p.name].nbytes for p in planned]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_with_a_parent_is_its_copy(kind: str, dense: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    dense(kind).to(dtype).save_pretrained(tmp_path / "dense")
    made, parent = tensors_of(write(tmp_path / "dense", "out", mixture_of(kind))), tensors_of(tmp_path / "dense")
    for layer in SPARSE:
        for part in FFN:
            name = f"model.layers.{layer}.mlp.{part}.weight"
            expected = parent.pop(name)
            for expert in range(5):
                assert torch.equal(made.pop(f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"), expected)
            assert name not in made
    assert all(torch.equal(made.pop(name), tensor) for name, tensor in parent.items())
    new = {n.split(".mlp.")[1] for n in made}
    assert new >= {"gate.weight"}
    assert all(n.startswith(("gate.", "shared_expert")) for n in new)
    assert all((t == 0).all() for n, t in made.items() if "shared_expert" in n)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_routers_only(parent: Path, kind: str) -> None:
    first, again = (write(parent, name, mixture_of(kind, seed=3)) for name in ("first", "again"))
    assert bits(first) == bits(again)
    before, after = tensors_of(first), tensors_of(write(parent, "other", mixture_of(kind, seed=4)))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.mlp.gate.weight" for i in SPARSE}


def test_routers_are_normal_draws_of_the_stock_width_and_differ_by_layer(parent: Path, kind: str) -> None:
    made = tensors_of(write(parent, "out", mixture_of(kind, num_experts=64)))
    first, second = (made[f"model.layers.{i}.mlp.gate.weight"] for i in SPARSE)
    error = 4 * 0.02 / (2 * first.numel()) ** 0.5  # four standard errors of a standard deviation
    for router in (first, second):
        assert abs(router.std().item() - 0.02) < error
        assert abs(router.mean().item()) < 4 * 0.02 / router.numel() ** 0.5
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 4 / first.numel() ** 0.5


def test_noise_moves_each_expert_by_its_share_and_nothing_else(parent: Path, kind: str) -> None:
    plain = tensors_of(write(parent, "plain", mixture_of(kind)))
    noisy_folder = write(parent, "noisy", mixture_of(kind, noise=0.25))
    assert bits(noisy_folder) == bits(write(parent, "again", mixture_of(kind, noise=0.25)))
    noisy = tensors_of(noisy_folder)
    for name, tensor in plain.items():
        if ".experts." not in name:
            assert torch.equal(noisy[name], tensor)
            continue
        moved = (noisy[name] - tensor) / tensor.std()
        assert abs(moved.std().item() - 0.25) < 4 * 0.25 / (2 * tensor.numel()) ** 0.5
    experts = [noisy[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(5)]
    assert not any(torch.equal(a, b) for i, a in enumerate(experts) for b in experts[:i])


@pytest.mark.parametrize("limit", [1, 8_000, 50_000])
def test_small_shards_hold_the_same_tensors_within_the_limit(
    parent: Path, kind: str, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    whole = tensors_of(write(parent, "whole", mixture_of(kind)))
    monkeypatch.setattr(convert, "SHARD_BYTES", limit)
    out = write(parent, "cut", mixture_of(kind))
    cut, index = tensors_of(out), read_json(out / "model.safetensors.index.json")
    assert set(cut) == set(whole)
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    assert {name: path.name for name, path in tensor_files(out).items()} == index["weight_map"]
    shards = [[t.nbytes for t in load_file(path).values()] for path in sorted(out.glob("*.safetensors"))]
    assert all(len(sizes) == 1 or sum(sizes) <= limit for sizes in shards)
    assert all(sum(one) + sum(other) > limit for one, other in pairwise(shards))


def test_a_sharded_parent_gives_the_same_mixture_as_a_single_file(kind: str, dense: Any, tmp_path: Path) -> None:
    made = []
    for name, size in (("one", "5GB"), ("many", "20KB")):
        dense(kind).save_pretrained(tmp_path / name, max_shard_size=size)
        made.append(tensors_of(write(tmp_path / name, f"{name}-out", mixture_of(kind))))
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    assert set(made[0]) == set(made[1])
    assert all(torch.equal(made[1][name], tensor) for name, tensor in made[0].items())


def test_planning_reads_headers_only(parent: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def headers(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with safe_open(*args, **kwargs) as file:
            yield SimpleNamespace(get_slice=file.get_slice)

    expected = plan_tensors(parent, read_config(parent), mixture_of(kind))
    monkeypatch.setattr(convert, "safe_open", headers)
    assert plan_tensors(parent, read_config(parent), mixture_of(kind)) == expected


@pytest.mark.parametrize("part", FFN)
def test_a_parent_without_an_ffn_is_refused_by_the_name_of_the_tensor(
    parent: Path, kind: str, change_tensors: Any, part: str
) -> None:
    name = f"model.layers.1.mlp.{part}.weight"
    change_tensors(parent, lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=name):
        plan_tensors(parent, read_config(parent), mixture_of(kind))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.float8_e4m3fn])
def test_a_parent_of_another_precision_is_refused(
    parent: Path, kind: str, change_tensors: Any, dtype: torch.dtype
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(parent, lambda t: t.update({name: t[name].to(dtype)}))
    with pytest.raises(CheckpointError, match="dtype"):
        plan_tensors(parent, read_config(parent), mixture_of(kind))
