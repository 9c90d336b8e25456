"""Dense config in, config of the native mixture out, read by the stock classes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.blueprint import (
    BLUEPRINTS,
    REFUSED,
    SIZES,
    Mixture,
    blueprint_for,
    dense_config,
    moe_config,
    notes,
    sliding_window,
)
from polyclinic.moe.skeleton import skeleton

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "vocab_size": 96}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
LENGTH = {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def raw(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a config.json that says no more than it must; its class fills in the rest."""
    return TINY | HEADS | LENGTH | {"head_dim": 16, "model_type": kind} | changes


def made(kind: str, mixture: Mixture, **changes: Any) -> dict[str, Any]:
    config = raw(kind, **changes)
    return moe_config(dense_config(config, "here"), blueprint_for(config, "here"), mixture)


def stock(config: dict[str, Any]) -> PreTrainedModel:
    return skeleton(config, "here")


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        dense_config(config, "some/folder")
    assert caught.value.exit_code == 4
    assert caught.value.where == "some/folder"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is refused


@pytest.mark.parametrize("model_type", [*REFUSED, "nobody_knows", None])
def test_another_architecture_is_refused_by_name_with_the_known_ones_and_the_reason(model_type: str | None) -> None:
    message = refusal(TINY | {"model_type": model_type})
    assert f"'{model_type}'" in message
    assert all(kind in message for kind in BLUEPRINTS)
    assert REFUSED.get(str(model_type), "") in message


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", ["many", 0, None])
def test_a_config_without_a_size_is_refused_by_the_name_of_the_size(key: str, value: object) -> None:
    assert key in refusal({k: v for k, v in raw("qwen3").items() if k != key})
    assert key in refusal(raw("qwen3", **{key: value}))


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size"])
def test_widths_that_the_stock_product_of_experts_does_not_take_are_refused(key: str) -> None:
    assert f"{key} 36 is no multiple of 8" in refusal(raw("qwen3", **{key: 36}))
    assert dense_config(raw("qwen3", **{key: 40}), "here")[key] == 40


@pytest.mark.parametrize(
    ("kind", "changes", "name"),
    [
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("phi3", {"resid_pdrop": 0.1}, "resid_pdrop"),
        ("phi3", {"embd_pdrop": 0.1}, "embd_pdrop"),
        ("phi3", {"partial_rotary_factor": 0.75}, "partial_rotary_factor"),
        ("phi3", {"original_max_position_embeddings": 16, "rope_scaling": {
            "type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}}, "longrope"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding window"),
        ("llama", {"hidden_act": 5}, "config.json"),
        ("qwen2", {"layer_types": ["full_attention"]}, "config.json"),
    ],
)  # fmt: skip
def test_what_the_native_mixture_cannot_hold_is_refused_by_name(kind: str, changes: dict[str, Any], name: str) -> None:
    assert name in refusal(raw(kind, **changes))


# What is held


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(BLUEPRINTS)), st.sets(st.integers(0, 5), min_size=1), st.integers(1, 9), st.data())
def test_the_stock_class_puts_experts_into_the_sparse_layers_and_no_other(
    kind: str, sparse: set[int], num_experts: int, data: st.DataObject
) -> None:
    top_k, normalise = data.draw(st.integers(1, num_experts)), data.draw(st.booleans())
    model = stock(made(kind, Mixture(tuple(sorted(sparse)), num_experts, top_k, normalise)))
    assert set(sparse_layers(model)) == sparse
    for layer in sparse_layers(model).values():
        assert layer.mlp.experts.down_proj.shape == (num_experts, 32, 48)
        assert layer.mlp.gate.top_k == top_k
        assert layer.mlp.gate.norm_topk_prob is normalise


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_the_mixture_keeps_what_the_dense_config_says(kind: str) -> None:
    dense = dense_config(raw(kind), "here")
    kept = AutoConfig.for_model(**made(kind, Mixture((4, 5), 7)))
    for key in (*TINY, *HEADS, *LENGTH, "rope_parameters", "hidden_act", "head_dim"):
        assert getattr(kept, key) == dense[key], key
    assert kept.mlp_only_layers == [0, 1, 2, 3]
    assert kept.num_experts == 7
    assert kept.moe_intermediate_size == dense["intermediate_size"]
    assert kept.router_aux_loss_coef == 0.0


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_what_a_config_leaves_unsaid_is_what_its_own_class_means_by_that(kind: str) -> None:
    bare = {k: v for k, v in raw(kind).items() if k in (*SIZES, "model_type", "num_attention_heads", "pad_token_id")}
    own = stock(bare).config
    kept = stock(moe_config(dense_config(bare, "here"), blueprint_for(bare, "here"), Mixture((5,), 3))).config
    for key in ("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "hidden_act", "rope_parameters"):
        assert getattr(kept, key) == getattr(own, key), key
    assert kept.bos_token_id == own.bos_token_id
    assert kept.eos_token_id == own.eos_token_id


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_the_named_architecture_is_the_class_that_the_stock_loader_builds(kind: str) -> None:
    config = made(kind, Mixture((5,), 4))
    assert config["architectures"] == [type(stock(config)).__name__]


@pytest.mark.parametrize("kind", sorted(set(BLUEPRINTS) - {"phi3"}))
def test_attention_has_the_same_parameters_in_parent_and_mixture(kind: str) -> None:
    parent = {n: p.shape for n, p in stock(raw(kind)).named_parameters() if ".mlp." not in n}
    mixture = stock(made(kind, Mixture((5,), 4)))
    assert {n: p.shape for n, p in mixture.named_parameters() if ".mlp." not in n} == parent


@pytest.mark.parametrize("rope", [
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16, "rope_theta": 5e5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_readers_of_either_release_find_the_rotary_embedding(kind: str, rope: dict[str, Any]) -> None:
    new = made(kind, Mixture((5,), 4), rope_parameters=rope)
    assert new["rope_parameters"] == rope
    old = {k: v for k, v in new.items() if k != "rope_parameters"}
    assert (old["rope_theta"], old["rope_scaling"]["rope_type"]) == (rope["rope_theta"], rope["rope_type"])
    assert AutoConfig.for_model(**old).rope_parameters == rope


# Sliding windows


@pytest.mark.parametrize(
    ("kind", "changes", "width"),
    [
        ("mistral", {"sliding_window": 8}, 8),
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {"sliding_window": 64}, None),  # as wide as the model is long
        ("phi3", {"sliding_window": 9}, 9),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, 8),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 6}, None),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8}, None),
        ("llama", {}, None),
    ],
)
def test_a_window_is_held_layer_by_layer_and_told_where_it_binds(
    kind: str, changes: dict[str, Any], width: int | None
) -> None:
    dense = dense_config(raw(kind, **changes), "here")
    assert sliding_window(dense) == width
    assert len(notes(dense)) == (width is not None)
    kept = AutoConfig.for_model(**made(kind, Mixture((5,), 3), **changes))
    if width is None:
        assert "sliding_attention" not in (kept.layer_types or [])
    else:
        assert kept.sliding_window == width
        assert kept.layer_types == (dense.get("layer_types") or ["sliding_attention"] * 6)
