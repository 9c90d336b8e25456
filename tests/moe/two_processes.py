"""One of two processes: trains an attached mixture on its half of a batch, under DDP and FSDP2.

    python two_processes.py FOLDER RANK

FOLDER/KIND are stock mixtures; gradients, loads and trained checkpoints are left beside them.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from polyclinic.moe.attach import Routing, attach, detach, sparse_layers
from polyclinic.moe.balance import Balance
from polyclinic.moe.checkpoint import load_model
from polyclinic.moe.router import NOW

BALANCES = {"plain": (0.0, 0.0), "z": (0.0, 0.3), "all": (0.7, 0.3)}
STEPS, RATE = 2, 0.05


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Four rows with families; every row has as many tokens."""
    tokens = torch.randint(1, 96, (4, 7), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": tokens, "labels": tokens, "family_ids": (tokens + seed) % 6 - 1}


def half(values: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    return {name: value[2 * rank : 2 * rank + 2] for name, value in values.items()}


def attached(folder: Path, balance: Balance, checkpointing: bool = False) -> Any:
    model = load_model(folder).train()
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    attach(model, Routing.HYBRID, balance)
    return model


def balance_of(name: str) -> Balance:
    return Balance(*BALANCES[name], bias_LE=0.05 * torch.eye(5)[:2])


def descend(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)


def under_ddp(folder: Path, rank: int, name: str) -> None:
    balance = balance_of(name)
    model = DistributedDataParallel(attached(folder, balance, checkpointing=name == "all"))
    model(**half(batch(), rank)).loss.backward()
    loads = balance.loads.take()
    if rank == 0:
        gradients = {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None}
        save_file({"loads": loads, **gradients}, folder.with_name(f"{folder.name}-ddp-{name}.safetensors"))


def under_fsdp(folder: Path, rank: int, checkpointing: bool) -> None:
    model = attached(folder, balance_of("all"), checkpointing)
    for layer in model.get_decoder().layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = descend(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(**half(batch(step), rank)).loss.backward()
        optimizer.step()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        stock = load_model(folder)
        stock.load_state_dict(state, strict=True)
        stock.save_pretrained(folder.with_name(f"{folder.name}-fsdp-{checkpointing}"))
    with pytest.raises(ValueError, match="sharded"):
        detach(model)
    dist.barrier()


def under_fsdp_in_half_precision(folder: Path, rank: int) -> None:
    """Count, with what a mixed precision policy could cast or copy on its way into a layer."""
    balance, dtypes = balance_of("all"), []
    model = attached(folder, balance, checkpointing=True)
    for layer in sparse_layers(model).values():
        layer.mlp.gate.register_forward_pre_hook(lambda *_: dtypes.append(NOW.guidance.bias_LE.dtype))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for layer in model.get_decoder().layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    model(**half(batch(), rank)).loss.backward()
    assert dtypes == [torch.float32] * 4  # two layers, forward and recomputation
    loads = balance.loads.take()
    if rank == 0:
        save_file({"loads": loads}, folder.with_name(f"{folder.name}-half.safetensors"))


def main(root: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=2)
    try:
        for kind in ("qwen2", "qwen3"):
            for name in BALANCES:
                under_ddp(root / kind, rank, name)
            for checkpointing in (False, True):
                under_fsdp(root / kind, rank, checkpointing)
            under_fsdp_in_half_precision(root / kind, rank)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
