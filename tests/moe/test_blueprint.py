"""Dense config in, config of the native mixture out, read by the stock classes."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.blueprint import BLUEPRINTS, SIZES, blueprint_for, moe_config

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "vocab_size": 96}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}


def dense_config(kind: str, **changes: Any) -> dict[str, Any]:
    """Return what the stock class writes into config.json."""
    config = AutoConfig.for_model(kind, **TINY | HEADS | {"head_dim": 16} | changes)
    return config.to_dict() | {"model_type": kind}


def on_meta(config: dict[str, Any]) -> PreTrainedModel:
    with warnings.catch_warnings(action="ignore"), torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        blueprint_for(config, "some/folder")
    assert caught.value.exit_code == 4
    assert caught.value.where == "some/folder"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_type", ["gemma2", "mixtral", "qwen2_moe", None])
def test_an_unknown_architecture_is_refused_by_name_with_the_known_ones(model_type: str | None) -> None:
    message = refusal(TINY | {"model_type": model_type})
    assert f"'{model_type}'" in message
    assert all(kind in message for kind in BLUEPRINTS)


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_a_sliding_window_is_refused_as_such(kind: str) -> None:
    assert "sliding window" in refusal(dense_config(kind) | {"use_sliding_window": True})


@pytest.mark.parametrize("key", SIZES)
def test_a_config_without_a_size_is_refused_by_the_name_of_the_size(key: str) -> None:
    config = dense_config("qwen3")
    assert key in refusal({k: v for k, v in config.items() if k != key})
    assert key in refusal(config | {key: "many"})


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(BLUEPRINTS)), st.sets(st.integers(0, 5), min_size=1), st.integers(1, 9), st.data())
def test_the_stock_class_puts_experts_into_the_sparse_layers_and_no_other(
    kind: str, sparse: set[int], num_experts: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, num_experts))
    dense = dense_config(kind)
    model = on_meta(moe_config(dense, blueprint_for(dense, "here"), num_experts, top_k, tuple(sorted(sparse))))
    assert set(sparse_layers(model)) == sparse
    for layer in sparse_layers(model).values():
        assert layer.mlp.experts.down_proj.shape == (num_experts, 32, 48)
        assert layer.mlp.gate.top_k == top_k
        assert layer.mlp.gate.norm_topk_prob is True


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_the_mixture_keeps_what_the_dense_config_says(kind: str) -> None:
    dense = dense_config(kind)
    made = moe_config(dense, blueprint_for(dense, "here"), 7, 2, (4, 5))
    kept = AutoConfig.for_model(**made)
    for key in (*TINY, *HEADS, "rope_parameters", "hidden_act", "max_position_embeddings", "head_dim"):
        assert getattr(kept, key) == dense[key], key
    assert kept.mlp_only_layers == [0, 1, 2, 3]
    assert kept.num_experts == 7
    assert kept.moe_intermediate_size == dense["intermediate_size"]
    assert kept.router_aux_loss_coef == 0.0


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_the_named_architecture_is_the_class_that_the_stock_loader_builds(kind: str) -> None:
    dense = dense_config(kind)
    made = moe_config(dense, blueprint_for(dense, "here"), 4, 2, (5,))
    assert made["architectures"] == [type(on_meta(made)).__name__]


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_attention_has_the_same_parameters_in_parent_and_mixture(kind: str) -> None:
    dense = dense_config(kind)
    mixture = on_meta(moe_config(dense, blueprint_for(dense, "here"), 4, 2, (5,)))
    parent = {n: p.shape for n, p in on_meta(dense).named_parameters() if ".mlp." not in n}
    assert {n: p.shape for n, p in mixture.named_parameters() if ".mlp." not in n} == parent
