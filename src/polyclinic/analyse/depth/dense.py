"""The gated FFN of each layer of a dense model, found by the names that native architectures give it."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from polyclinic.errors import CheckpointError

# The projection back to the hidden size, and what stands before it in a gated FFN of transformers.
FORMS = (
    ("down_proj", ("gate_proj", "up_proj")),
    ("down_proj", ("gate_up_proj",)),
    ("w2", ("w1", "w3")),
    ("output_linear", ("input_linear",)),
)
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # keys of a mixture's config


def refuse_mixture(config: Mapping[str, Any], where: object) -> None:
    """Raise CheckpointError if a config.json is that of a mixture."""
    for key in EXPERTS:
        if isinstance(config.get(key), int) and config[key] > 1:
            what = f"is a mixture ({key} {config[key]}), not a dense model"
            raise CheckpointError(where, what, "give its dense parent, or use polyclinic analyse run")


def down_projections(model: PreTrainedModel) -> list[nn.Module]:
    """Return the module of each decoder layer whose input is the activity of the layer's FFN units.

    Raises CheckpointError for a mixture, and where a layer has no gated FFN or more than one.
    """
    name = model.config.model_type
    out = []
    for index, layer in enumerate(model.get_decoder().layers):
        if any(hasattr(module, "experts") for module in layer.modules()):
            raise CheckpointError(name, f"layer {index} holds experts", "give a dense model")
        found = [
            getattr(block, down)
            for block in layer.modules()
            for down, others in FORMS
            if all(isinstance(getattr(block, part, None), nn.Module) for part in (down, *others))
        ]
        if len(found) != 1:
            what = f"layer {index} has {len(found) or 'no'} gated FFN{'s' * (len(found) > 1)} that can be read"
            raise CheckpointError(name, what, "give a model with one gated FFN a layer, such as Llama or Qwen")
        out.append(found[0])
    return out
