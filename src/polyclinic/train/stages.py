"""The second stage of a training: each family's expert alone, then all of them in one mixture.

Every expert starts from the same checkpoint, not from what the family before left: with hybrid or
plain top-k routing the forward of one family's text passes through other families' experts, and the
result would depend on the order. Trained apart, the experts are disjoint rows of the same tensors,
so that joining them has no order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model, read_families, write_families
from polyclinic.runs import read_json
from polyclinic.train.loop import quiet
from polyclinic.train.saving import NUMBER, ROWS, save_stock


def join(checkpoint: Path, experts: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Put experts that were trained apart into the mixture they started from; saved as a stock checkpoint.

    Raises CheckpointError for two folders of one expert, or tensors that the mixture has not.
    """
    quiet()
    model, joined = load_model(checkpoint), list[int]()
    for part in experts:
        facts, rows = read_json(part / NUMBER), load_file(part / ROWS)
        number = int(facts["expert"])
        if number in joined:
            raise CheckpointError(part, f"holds expert {number}, as another does", "give each expert once")
        joined.append(number)
        with torch.no_grad():
            for name, row in rows.items():
                _row_of(model, name, number, row.shape, part).copy_(row)
    facts = save_stock(model, checkpoint, folder)
    routing = read_json(experts[-1] / NUMBER)["routing"]
    write_families(folder, {**read_families(checkpoint), "trained_with": routing, "specialised": sorted(joined)})
    return {**facts, "specialised": sorted(joined)}


def _row_of(model: Any, name: str, number: int, shape: torch.Size, part: Path) -> torch.Tensor:
    """Return an expert's place in a tensor."""
    whole: torch.Tensor | None = dict(model.named_parameters()).get(name)
    if whole is None or number >= len(whole) or whole[number].shape != shape:
        what = f"{name} of expert {number} has no place in this mixture"
        raise CheckpointError(part, what, "join experts with the checkpoint that they started from")
    return whole[number]
