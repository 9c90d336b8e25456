"""Which native mixture holds which dense architecture: data, not code paths.

A blueprint names the transformers classes by their `model_type` and the config keys the mixture
needs. The forms and their traps in each engine were checked one by one; see docs/upcycle.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polyclinic.errors import CheckpointError

# Keys of a dense config that belong to the dense class alone.
DENSE_ONLY = ("architectures", "model_type", "transformers_version")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True)
class Blueprint:
    """One dense architecture and the native mixture it becomes."""

    dense_type: str
    moe_type: str
    architecture: str
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    drops: tuple[str, ...] = ()
    empty_shared_expert: bool = False


BLUEPRINTS = {
    b.dense_type: b
    for b in (
        Blueprint(
            dense_type="qwen2",
            moe_type="qwen2_moe",
            architecture="Qwen2MoeForCausalLM",
            extra_config={"shared_expert_intermediate_size": 0, "qkv_bias": True},
            empty_shared_expert=True,
        ),
        Blueprint(
            dense_type="qwen3",
            moe_type="qwen3_moe",
            architecture="Qwen3MoeForCausalLM",
            drops=("layer_types", "max_window_layers"),
        ),
    )
}


def blueprint_for(config: Mapping[str, Any], where: object) -> Blueprint:
    """Return the blueprint of a dense config; raises CheckpointError saying why there is none."""
    kind = str(config.get("model_type"))
    if kind not in BLUEPRINTS:
        known = ", ".join(sorted(BLUEPRINTS))
        raise CheckpointError(where, f"no blueprint for model_type '{kind}'", f"give one of: {known}")
    if config.get("use_sliding_window"):
        raise CheckpointError(where, "uses a sliding window", "give a model with full attention")
    for key in SIZES:
        if not isinstance(config.get(key), int):
            raise CheckpointError(where, f"config.json has no {key} in whole numbers", "fetch the checkpoint again")
    return BLUEPRINTS[kind]


def moe_config(
    dense: Mapping[str, Any], blueprint: Blueprint, num_experts: int, top_k: int, sparse: tuple[int, ...]
) -> dict[str, Any]:
    """Return the config.json of the mixture; `sparse` are the layers that get experts."""
    num_layers = int(dense["num_hidden_layers"])
    kept = {k: v for k, v in dense.items() if k not in (*DENSE_ONLY, *blueprint.drops)}
    return {
        **kept,
        **blueprint.extra_config,
        "architectures": [blueprint.architecture],
        "model_type": blueprint.moe_type,
        "num_experts": num_experts,
        "num_experts_per_tok": top_k,
        "norm_topk_prob": True,
        "moe_intermediate_size": dense["intermediate_size"],
        "mlp_only_layers": [i for i in range(num_layers) if i not in sparse],
        "decoder_sparse_step": 1,
        # The stock default (0.001) would add the pooled balance loss to every stock training loss.
        "router_aux_loss_coef": 0.0,
        "output_router_logits": False,
    }
