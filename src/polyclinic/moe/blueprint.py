"""Which native mixture holds which dense architecture: data, not code paths.

A blueprint names the transformers classes by their `model_type`, the config keys the mixture needs,
the dense keys that must hold for it to be exact, and how fused projections fall apart. The forms
and their traps in each engine were checked one by one; see docs/upcycle.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import AutoConfig

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import quiet
from polyclinic.recipe import ALIGNED

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
# What a mixture takes over from its parent, resolved with the defaults of the parent's own class.
CARRIED = (
    *SIZES,
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("use_cache", "tie_word_embeddings", "rope_parameters", "attention_dropout", "dtype"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)
# Rotary embeddings that the native classes compute as the dense ones do, with and without a cache.
ROPE_KINDS = ("default", "linear", "dynamic", "yarn", "llama3")

SharedExpert = Literal["none", "zero", "copy"]
RouterInit = Literal["random", "zero", "centroid"]


@dataclass(frozen=True)
class Mixture:
    """What is made of a dense model: where the experts go, how many, and how they begin."""

    sparse_layers: tuple[int, ...]
    num_experts: int
    top_k: int = 2
    normalise: bool = True  # norm_topk_prob; the paper's models leave the weights as they are
    shared_expert: SharedExpert = "none"
    router_init: RouterInit = "random"
    noise: float = 0.0
    reinit: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Blueprint:
    """One dense architecture and the native mixture it becomes."""

    dense_type: str
    moe_type: str
    architecture: str
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    carries: tuple[str, ...] = ()  # beyond CARRIED
    needs: Mapping[str, Any] = field(default_factory=dict)  # what the mixture has no place for
    # Fused dense tensor -> its parts with their rows: "q", "kv" or "ffn".
    splits: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    always_shared: bool = False  # the native class builds a shared expert, of width zero where none is wanted
    windows: bool = False  # the native class knows sliding windows layer by layer


def _qwen2_moe(dense_type: str, qkv_bias: bool, **more: Any) -> Blueprint:
    return Blueprint(
        dense_type=dense_type,
        moe_type="qwen2_moe",
        architecture="Qwen2MoeForCausalLM",
        extra_config={"qkv_bias": qkv_bias},
        always_shared=True,
        windows=True,
        **more,
    )


BLUEPRINTS = {
    b.dense_type: b
    for b in (
        _qwen2_moe("qwen2", qkv_bias=True),
        _qwen2_moe("llama", qkv_bias=False, needs={"attention_bias": False, "mlp_bias": False}),
        _qwen2_moe("mistral", qkv_bias=False),
        _qwen2_moe(
            "phi3",
            qkv_bias=False,
            needs={"resid_pdrop": 0.0, "embd_pdrop": 0.0},
            splits={
                "self_attn.qkv_proj": (
                    ("self_attn.q_proj", "q"),
                    ("self_attn.k_proj", "kv"),
                    ("self_attn.v_proj", "kv"),
                ),
                "mlp.gate_up_proj": (("mlp.gate_proj", "ffn"), ("mlp.up_proj", "ffn")),
            },
        ),
        Blueprint("qwen3", "qwen3_moe", "Qwen3MoeForCausalLM", carries=("attention_bias",)),
    )
}

_GEMMA = "its norms (1 + weight, four a layer), GeGLU and scaled embeddings have no place in a native mixture"
_POST_NORM = "it normalises after each block, the native mixtures before"
_SCALED = "its multipliers of embeddings, residuals and logits have no place in a native mixture"
_PARALLEL = "attention and FFN run side by side in it, and it has LayerNorm"
_ALREADY = "it is a mixture already; give a dense parent"
# Architectures people will try, and why each cannot be held exactly.
REFUSED = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text"), _GEMMA),
    **dict.fromkeys(("olmo2", "olmo3"), _POST_NORM),
    **dict.fromkeys(("granite", "minicpm", "cohere", "cohere2"), _SCALED),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "deepseek_v2"), _ALREADY),
    **dict.fromkeys(("deepseek_v3", "gpt_oss", "ernie4_5_moe", "glm4_moe", "qwen3_next"), _ALREADY),
    "upcycling-qwen2-moe": "it is a published Apollo-MoE; read it with polyclinic upcycle import-apollo",
    "smollm3": "some of its layers have no rotary embedding, the native mixtures give one to all",
    **dict.fromkeys(("phi", "gpt_neox", "falcon", "gptj"), _PARALLEL),
    **dict.fromkeys(("gpt2", "opt", "bloom"), "it has LayerNorm and learned or ALiBi positions"),
    "stablelm": "it has LayerNorm and rotary embeddings on a part of each head",
}


def blueprint_for(config: Mapping[str, Any], where: object) -> Blueprint:
    """Return the blueprint of a dense config.json; raises CheckpointError saying why there is none."""
    kind = str(config.get("model_type"))
    if kind not in BLUEPRINTS:
        known = ", ".join(sorted(BLUEPRINTS))
        why = f": {REFUSED[kind]}" if kind in REFUSED else ""
        raise CheckpointError(where, f"no blueprint for model_type '{kind}'{why}", f"give one of: {known}")
    for key in SIZES:
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise CheckpointError(where, f"config.json has no {key} in whole numbers", "fetch the checkpoint again")
    for key in ("hidden_size", "intermediate_size"):
        if config[key] % ALIGNED:
            what = f"{key} {config[key]} is no multiple of {ALIGNED}, which the stock experts need"
            raise CheckpointError(where, what, f"give a model with {key} a multiple of {ALIGNED}")
    return BLUEPRINTS[kind]


def dense_config(raw: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return a dense config.json with every default of its stock class filled in.

    Raises CheckpointError where the class refuses it, or where no native mixture computes the same.
    """
    blueprint = blueprint_for(raw, where)
    try:
        values = {k: v for k, v in raw.items() if k != "model_type"}
        with quiet():
            dense: dict[str, Any] = AutoConfig.for_model(blueprint.dense_type, **values).to_dict()
    except Exception as err:  # a strange value fails anywhere in the stock class
        what = f"config.json is refused by its own class ({' '.join(str(err).split())[:200]})"
        raise CheckpointError(where, what, "fetch the checkpoint again") from err
    if "sliding_window" not in AutoConfig.for_model(blueprint.dense_type).to_dict():
        dense.pop("sliding_window", None)  # left over from another architecture; this class computes none
        dense.pop("layer_types", None)
    dense["head_dim"] = dense.get("head_dim") or dense["hidden_size"] // dense["num_attention_heads"]
    for key, wanted in blueprint.needs.items():
        if dense.get(key, wanted) != wanted:
            what = f"{key} is {dense[key]}, which {blueprint.moe_type} has no place for"
            raise CheckpointError(where, what, f"give a model with {key} {wanted}")
    _check_rope(dense.get("rope_parameters") or {}, where)
    if sliding_window(dense) and not blueprint.windows:
        what = f"uses a sliding window, which {blueprint.moe_type} cannot hold layer by layer"
        raise CheckpointError(where, what, "give a model with full attention")
    return dense


def _check_rope(rope: Mapping[str, Any], where: object) -> None:
    kind, share = rope.get("rope_type", "default"), rope.get("partial_rotary_factor") or 1.0
    if share != 1.0:
        what = f"turns only {share} of each head (partial_rotary_factor), the native mixtures turn all of it"
        raise CheckpointError(where, what, "Phi-4-mini is such a model, Phi-4 14B is not")
    if kind not in ROPE_KINDS:
        what = f"rotary embedding '{kind}' depends on the length in a way the native mixtures do not follow"
        raise CheckpointError(where, what, f"give a model with one of: {', '.join(ROPE_KINDS)}")


def sliding_window(dense: Mapping[str, Any]) -> int | None:
    """Return the width of a resolved config's sliding window in tokens, or None if no layer has one that binds."""
    width = dense.get("sliding_window")
    types = dense.get("layer_types") or ["sliding_attention"]
    if not width or width >= dense["max_position_embeddings"] or "sliding_attention" not in types:
        return None
    return int(width)


def moe_config(dense: Mapping[str, Any], blueprint: Blueprint, mixture: Mixture) -> dict[str, Any]:
    """Return the config.json of a mixture from its parent's resolved config."""
    num_layers = int(dense["num_hidden_layers"])
    shared = dense["intermediate_size"] if mixture.shared_expert != "none" else 0
    return {
        "architectures": [blueprint.architecture],
        "model_type": blueprint.moe_type,
        **{key: dense[key] for key in (*CARRIED, *blueprint.carries) if dense.get(key) is not None},
        "head_dim": dense["head_dim"],
        **_older_rope(dense.get("rope_parameters") or {}),
        **_window(dense, num_layers),
        **blueprint.extra_config,
        **({"shared_expert_intermediate_size": shared} if blueprint.always_shared else {}),
        "num_experts": mixture.num_experts,
        "num_experts_per_tok": mixture.top_k,
        "norm_topk_prob": mixture.normalise,
        "moe_intermediate_size": dense["intermediate_size"],
        "mlp_only_layers": [i for i in range(num_layers) if i not in mixture.sparse_layers],
        "decoder_sparse_step": 1,
        # The stock default (0.001) would add the pooled balance loss to every stock training loss.
        "router_aux_loss_coef": 0.0,
        "output_router_logits": False,
    }


def _older_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Repeat the rotary embedding under the names of transformers 4, whose readers know no others."""
    out: dict[str, Any] = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    if rope.get("rope_type", "default") != "default":
        out["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    return out


def _window(dense: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    width = sliding_window(dense)
    if width is None:
        return {"use_sliding_window": False}
    types = dense.get("layer_types") or ["sliding_attention"] * num_layers
    return {"use_sliding_window": True, "sliding_window": width, "layer_types": list(types)}


def notes(dense: Mapping[str, Any]) -> list[str]:
    """Return what a user of the mixture must know beyond the proof."""
    width = sliding_window(dense)
    if width is None:
        return []
    return [f"attention window of {width} tokens: exact with sdpa and eager attention; flash attention ignores it"]
