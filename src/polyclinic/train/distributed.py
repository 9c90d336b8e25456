"""The processes that torchrun started: who leads, what they tell each other, how a model is spread.

A process that torchrun did not start is a company of one: then nothing here waits for anybody.
What is said travels as JSON in tensors, never pickled.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig

from polyclinic import errors
from polyclinic.errors import PolyclinicError, UsageError

PATIENCE = timedelta(days=30)  # of who waits for the next training: the first process may read a corpus meanwhile
LAYERS = {"model.layers.*": "free_full_weight"}  # gathered one at a time; the rest, tied weights too, is one group
_CALLS: list[Any] = []  # the group in which trainings are told


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def leads() -> bool:
    """Say whether this is the process that owns the run folder and speaks."""
    return rank() == 0


@contextmanager
def company() -> Iterator[bool]:
    """Join the processes that torchrun started for the length of the block; gives whether this one leads."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    PartialState(cpu=not torch.cuda.is_available())
    _CALLS[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]
    yield leads()
    tell(None)  # not after an error: torchrun ends the others then
    PartialState().destroy_process_group()
    _CALLS.clear()


def tell(call: Any) -> None:
    """Tell the others what to take part in; None means that there is nothing more."""
    if size() > 1 and leads():
        _spread_json(call, _CALLS[0])


def told() -> Any:
    """Wait for what the first process tells."""
    return _spread_json(None, _CALLS[0])


def _spread_json(value: Any, group: Any) -> Any:
    """Return the first process's value; the others' is not looked at."""
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if leads() else None
    length = torch.tensor([0 if data is None else len(data)])
    dist.broadcast(length, 0, group=group)
    data = torch.empty(int(length), dtype=torch.uint8) if data is None else data
    dist.broadcast(data, 0, group=group)
    return json.loads(data.numpy().tobytes())


def gather(value: Any) -> list[Any]:
    """Return the JSON value of every process, in their order, to all."""
    if size() == 1:
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(data)]), group=_CALLS[0])
    room = torch.zeros(max(map(int, lengths)), dtype=torch.uint8)
    room[: len(data)] = data
    rows = [torch.empty_like(room) for _ in lengths]
    dist.all_gather(rows, room, group=_CALLS[0])
    return [json.loads(row[: int(n)].numpy().tobytes()) for row, n in zip(rows, lengths, strict=True)]


def agree(error: PolyclinicError | None) -> None:
    """Let an error of one process be that of all: the first raises it, the others end without a word.

    Every process must call this at the same place.
    """
    parts = None if error is None else [type(error).__name__, error.where, error.what, error.try_]
    found = next((each for each in gather(parts) if each is not None), None)
    if found is None:
        return
    kind, *said = found
    told_error: PolyclinicError = getattr(errors, kind)(*said)
    if not leads():
        raise SystemExit(told_error.exit_code)
    raise error or told_error


def shared_out(accumulate: int) -> int:
    """Return how many of a step's batches this process computes; raises UsageError unless all get as many."""
    if accumulate % size():
        what = f"a step of {accumulate} batches cannot be shared out among {size()} processes"
        refused = UsageError("train.accumulate", what, f"give a multiple of {size()}")
        raise refused if leads() else SystemExit(refused.exit_code)  # one of them says it
    return accumulate // size()


def spread(model: PreTrainedModel, by_expert: bool = False) -> None:
    """Shard a model over the processes (FSDP2), each parameter by rows; gradients become means over them.

    By transformers' own `DistributedConfig`, which its Trainer knows. Layers are gathered one at a
    time; embeddings, head and last norm stay together, because tied weights must be in one group.
    `by_expert`: experts are not gathered, tokens travel to the process that holds theirs (expert
    parallelism). Raises UsageError where they cannot be dealt out evenly.
    """
    experts = int(getattr(model.config, "num_experts", 0))
    if by_expert and (not experts or experts % size()):
        what = f"{experts} experts cannot be dealt out among {size()} processes"
        refused = UsageError("train.parallel", what, "give a number of processes that divides them, or parallel fsdp")
        raise refused if leads() else SystemExit(refused.exit_code)
    model.fsdp_plan = LAYERS
    wanted = DistributedConfig(fsdp_size=size(), ep_size=size() if by_expert else 1)
    config, _, mesh = type(model).prepare_distribute_model(wanted)
    type(model).maybe_distribute_model(model, config, mesh)


def is_spread(model: nn.Module) -> bool:
    """Say whether a model is sharded."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def gathered(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Return the whole state of a sharded model on the CPU of the first process, tied weights once.

    None in the others, and for a model that is not sharded. Every process must call this.
    """
    if not is_spread(model):
        return None
    state, tied = {}, getattr(model, "all_tied_weights_keys", {}) if model.config.tie_word_embeddings else {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)
        if leads() and name not in tied:
            state[name] = full.cpu()
    return state if leads() else None


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from its shards; every process must call this at the same place."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
