"""What a training leaves: a stock checkpoint, or the rows of one expert. The first process writes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model
from polyclinic.runs import write_json
from polyclinic.train import distributed
from polyclinic.train.carry import save_with_companions
from polyclinic.train.parts import trained

ROWS, NUMBER = "expert.safetensors", "expert.json"


def save_stock(model: Any, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Save weights and what travels with them, and read the weights back strictly; every process must call this."""
    state, changed = distributed.gathered(model), None
    if distributed.leads():
        if state is not None:
            del model.config.distributed_config  # saving is not to gather again
        save_with_companions(model, tokenizer, folder, state)
        reloaded = load_model(folder).state_dict()
        for name, tensor in (state or model.state_dict()).items():
            if not tensor.cpu().equal(reloaded[name]):
                changed = CheckpointError(folder, f"{name} changed on its way to disk", "run again; is the disk sound?")
    distributed.agree(changed)
    return {"parameters": sum(p.numel() for p in model.parameters())}


def save_expert(model: Any, expert: int, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save one expert's rows of the fused tensors, with facts that say whose they are; every process must call this."""
    parts = {id(parameter) for parameter in trained(model, "experts")}
    named = [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in parts]
    with torch.no_grad():
        rows = {name: distributed.whole(parameter)[expert].cpu().contiguous() for name, parameter in named}
    if distributed.leads():
        save_file(rows, folder / ROWS)
        write_json(folder / NUMBER, {**facts, "expert": expert})
    return {"expert": expert, "parameters": sum(row.numel() for row in rows.values())}
