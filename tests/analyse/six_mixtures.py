"""Tiny mixtures of six native architectures, and one without an expert made from one with it."""

import copy
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES: dict[str, Any] = {
    **{"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "max_position_embeddings": 128, "num_experts_per_tok": 2},
    **{"initializer_range": 0.3, "moe_intermediate_size": 16, "intermediate_size": 16, "pad_token_id": None},
}
_GROUPED = {
    **{"n_routed_experts": 5, "num_local_experts": 5, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    **{"norm_topk_prob": True, "first_k_dense_replace": 0, "routed_scaling_factor": 1.7},
}
OWN: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5, "sliding_window": None},
    "qwen2_moe": {"num_experts": 5, "norm_topk_prob": True, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 5, "norm_topk_prob": True, "head_dim": 16},
    "olmoe": {"num_experts": 5, "norm_topk_prob": True},
    "glm4_moe": {**_GROUPED, "head_dim": 16},
    "deepseek_v3": {
        **_GROUPED,
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    },
}
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def stock(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Make a random mixture of five experts and two picks in two layers; its biases differ, where it has them."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **copy.deepcopy(SIZES | OWN[kind] | changes)))
    with torch.no_grad():
        for layer in model.get_decoder().layers:
            gate = layer.mlp.gate
            gate.weight.normal_(std=0.3)
            if hasattr(gate, "e_score_correction_bias"):
                gate.e_score_correction_bias.normal_(std=0.1)
    return model.eval()


def lacking(model: PreTrainedModel, layer: int, expert: int) -> PreTrainedModel:
    """Copy a mixture and cut an expert out of one layer: its weights, its row and its bias."""
    out = copy.deepcopy(model)
    block = out.get_decoder().layers[layer].mlp
    rest = [e for e in range(block.gate.weight.shape[0]) if e != expert]
    with torch.no_grad():
        for name in ("gate_up_proj", "down_proj"):
            setattr(block.experts, name, torch.nn.Parameter(getattr(block.experts, name)[rest]))
        block.gate.weight = torch.nn.Parameter(block.gate.weight[rest])
        if hasattr(block.gate, "e_score_correction_bias"):
            block.gate.e_score_correction_bias = block.gate.e_score_correction_bias[rest]
    block.experts.num_experts = block.gate.num_experts = len(rest)
    return out
