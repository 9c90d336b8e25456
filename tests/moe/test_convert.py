"""Dense tensors into a native mixture: copies where there is a parent, seeded draws where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from polyclinic.moe.blueprint import Mixture, blueprint_for, dense_config
from polyclinic.moe.checkpoint import read_config, tensor_files
from polyclinic.moe.convert import Planned, headers, plan_tensors, write_tensors
from polyclinic.moe.skeleton import checked_files
from polyclinic.runs import read_json

SPARSE = (1, 2)
FFN = ("gate_proj", "up_proj", "down_proj")
PLAIN = Mixture(SPARSE, 5)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.fixture
def parent(kind: str, dense: Any, tmp_path: Path) -> Path:
    dense(kind).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def plan(parent: Path, mixture: Mixture = PLAIN) -> list[Planned]:
    raw = read_config(parent)
    found = headers(checked_files(parent))
    return plan_tensors(found, dense_config(raw, parent), blueprint_for(raw, parent), mixture)


def write(parent: Path, name: str, mixture: Mixture = PLAIN, given: dict[str, Tensor] | None = None) -> Path:
    out = parent.with_name(name)
    out.mkdir()
    write_tensors(plan(parent, mixture), checked_files(parent), out, mixture.seed, given or {})
    return out


def bits(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


# Names, shapes, copies


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_plan_is_what_the_stock_class_saves(
    kind: str, dense: Any, mixture: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    dense(kind).to(dtype).save_pretrained(tmp_path / "dense")
    mixture(kind).to(dtype).save_pretrained(tmp_path / "stock")
    stock = tensors_of(tmp_path / "stock")
    planned = plan(tmp_path / "dense")
    assert {p.name: (p.shape, p.dtype) for p in planned} == {n: (tuple(t.shape), t.dtype) for n, t in stock.items()}
    assert [p.num_bytes for p in planned] == [stock[p.name].nbytes for p in planned]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_with_a_parent_is_its_copy(kind: str, dense: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    dense(kind).to(dtype).save_pretrained(tmp_path / "dense")
    made, parent = tensors_of(write(tmp_path / "dense", "out")), tensors_of(tmp_path / "dense")
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


def test_a_shared_expert_is_a_copy_that_speaks_at_once_or_one_that_is_silent_at_first(
    dense: Any, tmp_path: Path
) -> None:
    dense("qwen2").save_pretrained(tmp_path / "dense")
    folder = tmp_path / "dense"
    parent = tensors_of(folder)
    copied, silent = (
        tensors_of(write(folder, start, replace(PLAIN, shared_expert=start)))  # type: ignore[arg-type]
        for start in ("copy", "zero")
    )
    for layer in SPARSE:
        block = f"model.layers.{layer}.mlp"
        for part in FFN:
            expected = parent[f"{block}.{part}.weight"]
            assert torch.equal(copied[f"{block}.shared_expert.{part}.weight"], expected)
            kept = torch.zeros_like(expected) if part == "down_proj" else expected
            assert torch.equal(silent[f"{block}.shared_expert.{part}.weight"], kept)
        assert not copied[f"{block}.shared_expert_gate.weight"].any()  # both speak at one half, as published


def test_fused_projections_fall_into_their_parts(tmp_path: Path, dense_phi: Path) -> None:
    parent, made = tensors_of(dense_phi), tensors_of(write(dense_phi, "out"))
    for layer in range(3):
        fused = parent[f"model.layers.{layer}.self_attn.qkv_proj.weight"]
        parts = [made[f"model.layers.{layer}.self_attn.{p}_proj.weight"] for p in "qkv"]
        assert [len(p) for p in parts] == [32, 16, 16]
        assert torch.equal(torch.cat(parts), fused)
        fused = parent[f"model.layers.{layer}.mlp.gate_up_proj.weight"]
        stem = f"model.layers.{layer}.mlp" + (".experts.3" if layer in SPARSE else "")
        assert torch.equal(torch.cat([made[f"{stem}.{p}.weight"] for p in FFN[:2]]), fused)
    assert not [name for name in made if "qkv_proj" in name or "gate_up_proj" in name]


@pytest.fixture
def dense_phi(dense: Any, tmp_path: Path) -> Path:
    dense("phi3").save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


# Draws


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_routers_only(parent: Path) -> None:
    first, again = (write(parent, name, replace(PLAIN, seed=3)) for name in ("first", "again"))
    assert bits(first) == bits(again)
    before, after = tensors_of(first), tensors_of(write(parent, "other", replace(PLAIN, seed=4)))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.mlp.gate.weight" for i in SPARSE}


def test_routers_are_normal_draws_of_the_stock_width_and_differ_by_layer(parent: Path) -> None:
    made = tensors_of(write(parent, "out", replace(PLAIN, num_experts=64)))
    first, second = (made[f"model.layers.{i}.mlp.gate.weight"] for i in SPARSE)
    error = 4 * 0.02 / (2 * first.numel()) ** 0.5  # four standard errors of a standard deviation
    for router in (first, second):
        assert abs(router.std().item() - 0.02) < error
        assert abs(router.mean().item()) < 4 * 0.02 / router.numel() ** 0.5
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 4 / first.numel() ** 0.5


def test_a_router_is_zero_or_what_was_given_where_that_is_asked_for(parent: Path) -> None:
    zero = tensors_of(write(parent, "zero", replace(PLAIN, router_init="zero")))
    assert all(not zero[f"model.layers.{i}.mlp.gate.weight"].any() for i in SPARSE)
    rows = {f"model.layers.{i}.mlp.gate.weight": torch.randn(5, 32) for i in SPARSE}
    given = tensors_of(write(parent, "given", replace(PLAIN, router_init="centroid"), rows))
    assert all(torch.equal(given[name], rows[name]) for name in rows)


def test_noise_moves_each_expert_by_its_share_and_nothing_else(parent: Path) -> None:
    plain, noise = tensors_of(write(parent, "plain")), replace(PLAIN, noise=0.25)
    noisy_folder = write(parent, "noisy", noise)
    assert bits(noisy_folder) == bits(write(parent, "again", noise))
    noisy = tensors_of(noisy_folder)
    for name, tensor in plain.items():
        if ".experts." not in name:
            assert torch.equal(noisy[name], tensor)
            continue
        moved = (noisy[name] - tensor) / tensor.std()
        assert abs(moved.std().item() - 0.25) < 4 * 0.25 / (2 * tensor.numel()) ** 0.5
    experts = [noisy[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(5)]
    assert not any(torch.equal(a, b) for i, a in enumerate(experts) for b in experts[:i])


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_reinit_draws_the_same_inner_units_of_an_experts_three_projections_again(parent: Path, share: float) -> None:
    """Drop-upcycling: rows of gate and up, columns of down, by the statistics of what is replaced."""
    plain, drawn = tensors_of(write(parent, "plain")), tensors_of(write(parent, "r", replace(PLAIN, reinit=share)))
    assert all(torch.equal(drawn[n], t) for n, t in plain.items() if ".experts." not in n)
    chosen = []
    for expert in range(5):
        units = []
        for part in FFN:
            name = f"model.layers.1.mlp.experts.{expert}.{part}.weight"
            axis = 0 if part == "down_proj" else 1
            moved = drawn[name] != plain[name]
            units.append(moved.any(axis))
            assert torch.equal(moved.all(axis), units[-1])
            old, new = (t.movedim(axis, 0)[:, units[-1]] for t in (plain[name], drawn[name]))
            assert abs(new.std() / old.std() - 1) < 4 * (2 / old.numel()) ** 0.5
            assert abs(new.mean() - old.mean()) < 4 * old.std() * (2 / old.numel()) ** 0.5
        assert torch.equal(units[0], units[1])
        assert torch.equal(units[0], units[2])
        assert units[0].sum() == round(share * 48)
        chosen.append(units[0])
    assert share == 1.0 or not all(torch.equal(chosen[0], other) for other in chosen[1:])


# Files


@pytest.mark.parametrize("limit", [1, 8_000, 50_000])
def test_shards_are_as_full_as_the_limit_or_the_largest_tensor_allows(
    parent: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    whole = tensors_of(write(parent, "whole"))
    monkeypatch.setattr(convert, "SMALLEST_SHARD", limit)
    out = write(parent, "cut")
    cut, index = tensors_of(out), read_json(out / "model.safetensors.index.json")
    assert set(cut) == set(whole)
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    assert {name: path.name for name, path in tensor_files(out).items()} == index["weight_map"]
    shards = [sum(t.nbytes for t in load_file(path).values()) for path in sorted(out.glob("*.safetensors"))]
    bound = max(limit, *(t.nbytes for t in whole.values()))
    assert max(shards) <= bound
    assert all(one + other > bound for one, other in pairwise(shards))
    assert len(shards) > 1


def test_a_sharded_parent_gives_the_same_mixture_as_a_single_file(kind: str, dense: Any, tmp_path: Path) -> None:
    made = []
    for name, size in (("one", "5GB"), ("many", "20KB")):
        dense(kind).save_pretrained(tmp_path / name, max_shard_size=size)
        made.append(tensors_of(write(tmp_path / name, f"{name}-out")))
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    assert set(made[0]) == set(made[1])
    assert all(torch.equal(made[1][name], tensor) for name, tensor in made[0].items())


def test_planning_reads_headers_only(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def headers_only(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with safe_open(*args, **kwargs) as file:
            yield SimpleNamespace(get_slice=file.get_slice)

    expected = plan(parent)
    monkeypatch.setattr(convert, "safe_open", headers_only)
    assert plan(parent) == expected


# Refusals


@pytest.mark.parametrize("part", FFN)
def test_a_parent_without_an_ffn_is_refused_by_the_name_of_the_tensor(
    parent: Path, change_tensors: Any, part: str
) -> None:
    name = f"model.layers.1.mlp.{part}.weight"
    change_tensors(parent, lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=name):
        plan(parent)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.float8_e4m3fn])
def test_a_parent_of_another_precision_is_refused(parent: Path, change_tensors: Any, dtype: torch.dtype) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(parent, lambda t: t.update({name: t[name].to(dtype)}))
    with pytest.raises(CheckpointError, match="dtype"):
        plan(parent)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.2.mlp.down_proj.weight"])
def test_a_parent_with_values_that_are_no_numbers_is_refused_by_the_name_of_the_tensor(
    parent: Path, change_tensors: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(convert, "PIECE", 10)  # what is looked for stands in the last of several pieces

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[-1] = value

    change_tensors(parent, spoil)
    with pytest.raises(CheckpointError, match=name):
        write(parent, "out")
