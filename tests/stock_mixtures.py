"""Tiny random mixtures of the architectures that transformers has, and their routers written out in numpy."""

from typing import Any

import numpy as np
import torch
from transformers import (
    DeepseekV3Config,
    Glm4MoeConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

VOCABULARY, HIDDEN, EXPERTS, PICKS = 90, 16, 8, 3
_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 24, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 128, "num_experts_per_tok": PICKS,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
_MANY: dict[str, Any] = {"num_experts": EXPERTS, "moe_intermediate_size": 8}
_GROUPS: dict[str, Any] = {
    "n_routed_experts": EXPERTS, "moe_intermediate_size": 8, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
    "n_shared_experts": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": True,
}  # fmt: skip
_LATENT: dict[str, Any] = {
    "q_lora_rank": None, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "qwen2_moe": Qwen2MoeConfig(**_SHARED, **_MANY, shared_expert_intermediate_size=8, mlp_only_layers=[1]),
    "qwen3_moe": Qwen3MoeConfig(**_SHARED, **_MANY, mlp_only_layers=[0], head_dim=8, norm_topk_prob=True),
    "mixtral": MixtralConfig(**_SHARED, num_local_experts=EXPERTS),
    "olmoe": OlmoeConfig(**_SHARED, num_experts=EXPERTS),
    "deepseek_v3": DeepseekV3Config(**_SHARED, **_GROUPS, **_LATENT),
    "glm4_moe": Glm4MoeConfig(**_SHARED, **_GROUPS, head_dim=8),
}
LAYERS = {"qwen2_moe": [0, 2], "qwen3_moe": [1, 2], "mixtral": [0, 1, 2], "olmoe": [0, 1, 2]}
LAYERS |= {"deepseek_v3": [1, 2], "glm4_moe": [1, 2]}
SIGMOID = ("deepseek_v3", "glm4_moe")


def model(kind: str, seed: int = 0) -> PreTrainedModel:
    """Return a mixture far from fresh, with correction biases where it has them."""
    torch.manual_seed(seed)
    built: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(CONFIGS[kind])](CONFIGS[kind]).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        for name, buffer in built.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.3 * torch.randn(buffer.shape))
    return built


def routers(kind: str, built: PreTrainedModel) -> list[Any]:
    """Return the routers of the sparse layers."""
    return [built.model.layers[i].mlp.gate for i in LAYERS[kind]]


@torch.no_grad()
def routed(kind: str, built: PreTrainedModel, ids: list[int]) -> list[dict[str, np.ndarray]]:
    """Run one document alone; return per sparse layer `picks` (T, K), `weights` (T, K) and `probs` (T, E)."""
    states: list[torch.Tensor] = []
    hooks = [r.register_forward_pre_hook(lambda _, args: states.append(args[0])) for r in routers(kind, built)]
    built(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    out = []
    for router, state in zip(routers(kind, built), states, strict=True):
        logits = state.double().reshape(-1, HIDDEN).numpy() @ router.weight.double().numpy().T
        out.append(_biased(logits, router) if kind in SIGMOID else _plain(kind, logits))
    return out


def _plain(kind: str, logits: np.ndarray) -> dict[str, np.ndarray]:
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    picks = np.argsort(-probs, axis=1)[:, :PICKS]
    weights = np.take_along_axis(probs, picks, 1)
    if kind in ("qwen3_moe", "mixtral"):
        weights = weights / weights.sum(1, keepdims=True)
    return {"picks": picks, "weights": weights, "probs": probs}


def _biased(logits: np.ndarray, router: Any) -> dict[str, np.ndarray]:
    """Sigmoid scores; the bias decides, first for two of four groups, then for experts inside them."""
    scores = 1 / (1 + np.exp(-logits))
    choice = scores + router.e_score_correction_bias.double().numpy()
    picks = np.empty((len(logits), PICKS), dtype=int)
    for token, row in enumerate(choice):
        groups = row.reshape(4, 2).sum(1)
        allowed = [e for e in range(EXPERTS) if e // 2 in np.argsort(-groups)[:2]]
        picks[token] = sorted(allowed, key=lambda e: -row[e])[:PICKS]
    weights = np.take_along_axis(scores, picks, 1)
    weights = 2.5 * weights / weights.sum(1, keepdims=True)
    return {"picks": picks, "weights": weights, "probs": scores / scores.sum(1, keepdims=True)}
