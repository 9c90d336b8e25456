"""The proofs pass where the mixture is right, and each sees the fault that it is there for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_moe import modeling_qwen2_moe
from transformers.models.qwen3_moe import modeling_qwen3_moe

from polyclinic.errors import CheckpointError, ProofError
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.checkpoint import load_model
from polyclinic.moe.verify import (
    BOUND,
    compare_logits,
    compare_mixture,
    first_difference,
    first_strange,
    plain_mixture,
    verify,
)

Pair = tuple[Path, Path]
STOCK = {
    "qwen2": (modeling_qwen2_moe.Qwen2MoeTopKRouter, modeling_qwen2_moe.Qwen2MoeExperts),
    "qwen3": (modeling_qwen3_moe.Qwen3MoeTopKRouter, modeling_qwen3_moe.Qwen3MoeExperts),
}


def refusal(pair: Pair) -> str:
    with pytest.raises(ProofError) as caught:
        verify(*pair, seed=0)
    assert caught.value.exit_code == 4
    assert caught.value.where == str(pair[1])
    return str(caught.value)


def some_tokens(seed: int = 0) -> Tensor:
    return torch.randint(96, (2, 48), generator=torch.Generator().manual_seed(seed))


def unseen_token(seed: int = 0) -> int:
    return min(set(range(96)) - set(some_tokens(seed).flatten().tolist()))


def change(name: str, by: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[name] = by(tensors[name].clone())

    return edit


# Right mixtures


def test_a_right_mixture_is_proven_with_its_figures(pair: Pair) -> None:
    facts = verify(*pair, seed=0)
    dense, moe = (load_model(folder) for folder in pair)
    expected, got = dense(some_tokens()).logits, moe(some_tokens()).logits
    assert facts["difference"] == (expected - got).abs().max().item() <= 2e-6 * facts["largest_logit"]
    assert facts["largest_logit"] == expected.abs().max().item()
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]
    assert facts["largest_output"] > 0
    assert verify(*pair, seed=0) == facts


@torch.no_grad()
@pytest.mark.parametrize("top_k", range(1, 6))
@pytest.mark.parametrize("normalise", [True, False])
def test_the_plain_loop_equals_the_stock_block(mixture: Any, kind: str, top_k: int, normalise: bool) -> None:
    model = mixture(kind, num_experts_per_tok=top_k, norm_topk_prob=normalise)
    states = torch.randn(1, 20, 32)
    for layer in sparse_layers(model).values():
        expected = layer.mlp(states)[0]
        got = plain_mixture(layer.mlp, states[0], top_k, normalise)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-6 * expected.abs().max().item())


@torch.no_grad()
def test_the_plain_loop_stands_router_scores_beyond_the_range_of_exp(mixture: Any, kind: str) -> None:
    block = sparse_layers(mixture(kind))[1].mlp
    block.gate.weight.copy_(torch.tensor([0.0, 300.0, 100.0, 200.0, -300.0])[:, None].expand(5, 32) / 32)
    states = torch.ones(1, 3, 32)
    torch.testing.assert_close(plain_mixture(block, states[0], 2, normalise=True), block(states)[0])


# Wrong weights


def test_one_changed_bit_of_any_tensor_with_a_parent_is_named(pair: Pair) -> None:
    dense, moe = (load_model(folder) for folder in pair)
    assert first_strange(dense, moe) is None
    parentless = ("mlp.gate.", "shared_expert")
    named = {n: t for n, t in moe.state_dict().items() if not any(p in n for p in parentless)}
    assert len(named) > 25
    for name, tensor in named.items():
        value = tensor.flatten()[-1].clone()
        tensor.view(-1)[-1] = torch.nextafter(value, torch.tensor(9.0))
        assert first_strange(dense, moe) == name
        tensor.view(-1)[-1] = value
    assert first_strange(dense, moe) is None


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.1.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_changed_tensor_fails_the_proof(pair: Pair, change_tensors: Any, name: str) -> None:
    change_tensors(pair[1], change(name, lambda t: t + 0.05 * torch.randn_like(t)))
    assert "logits differ" in refusal(pair)


def test_logits_that_are_no_numbers_are_no_small_difference(pair: Pair, change_tensors: Any) -> None:
    change_tensors(pair[1], change("model.layers.1.input_layernorm.weight", lambda t: t * float("nan")))
    assert "first at layer 1;" in refusal(pair)


def test_a_vocabulary_row_that_no_token_visited_fails_the_proof(pair: Pair, change_tensors: Any) -> None:
    row = unseen_token()
    change_tensors(pair[1], change("model.embed_tokens.weight", lambda t: t.index_fill_(0, torch.tensor(row), 1.0)))
    assert "model.embed_tokens.weight" in refusal(pair)


def test_an_expert_that_no_token_visited_fails_the_proof(
    kind: str, dense: Any, converted: Any, change_tensors: Any, tmp_path: Path
) -> None:
    dense(kind).save_pretrained(tmp_path / "dense")
    pair = tmp_path / "dense", converted(tmp_path / "dense", num_experts=30)  # for 96 tokens, most near one another
    idle: list[int] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        idle.extend(sorted(set(range(30)) - set(args[1].flatten().tolist())))

    moe = load_model(pair[1])
    sparse_layers(moe)[1].mlp.experts.register_forward_pre_hook(note)
    moe(some_tokens())
    name = f"model.layers.1.mlp.experts.{idle[0]}.up_proj.weight"
    change_tensors(pair[1], change(name, lambda t: t + 1.0))
    assert "model.layers.1.mlp.experts.gate_up_proj" in refusal(pair)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_first_layer_that_differs_is_named(pair: Pair, change_tensors: Any, layer: int) -> None:
    name = f"model.layers.{layer}.self_attn.o_proj.weight"
    change_tensors(pair[1], change(name, lambda t: t + 0.05 * torch.randn_like(t)))
    dense, moe = (load_model(folder) for folder in pair)
    assert first_difference(dense, moe, some_tokens()) == layer
    assert f"first at layer {layer};" in refusal(pair)


@torch.no_grad()
def test_no_layer_differs_where_only_the_output_head_does(pair: Pair, change_tensors: Any) -> None:
    change_tensors(pair[1], change("lm_head.weight", lambda t: 2 * t))
    dense, moe = (load_model(folder) for folder in pair)
    assert first_difference(dense, moe, some_tokens()) == len(dense.model.layers)
    assert "logits differ" in refusal(pair)


# Wrong routing


def test_weights_that_do_not_sum_to_one_fail_the_proof_at_the_first_sparse_layer(
    pair: Pair, change_config: Any
) -> None:
    change_config(pair[1], norm_topk_prob=False)
    assert "first at layer 1;" in refusal(pair)


def weakest(router: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A router that chooses the least probable experts."""
    logits = functional.linear(states.reshape(-1, router.hidden_dim), router.weight)
    weights, picks = logits.softmax(-1).topk(router.top_k, largest=False)
    return logits, weights / weights.sum(-1, keepdim=True), picks


def unweighted(router: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A router that weighs its picks alike."""
    logits = functional.linear(states.reshape(-1, router.hidden_dim), router.weight)
    picks = logits.topk(router.top_k).indices
    return logits, torch.full(picks.shape, 1 / router.top_k), picks


@pytest.mark.parametrize("fault", [weakest, unweighted])
def test_a_router_fault_that_equal_experts_hide_fails_the_proof(
    pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(STOCK[kind][0], "forward", fault)
    assert_hidden_from_logits(pair)
    assert "plain loop" in refusal(pair)


def test_two_experts_in_each_others_place_fail_the_proof(
    pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = STOCK[kind][1].forward
    swapped = torch.tensor([1, 0, 2, 3, 4])
    monkeypatch.setattr(STOCK[kind][1], "forward", lambda self, x, picks, w: stock(self, x, swapped[picks], w))
    assert_hidden_from_logits(pair)
    assert "plain loop" in refusal(pair)


@torch.no_grad()
def assert_hidden_from_logits(pair: Pair) -> None:
    facts = compare_logits(*(load_model(folder) for folder in pair), some_tokens())
    assert facts["difference"] <= BOUND * facts["largest_logit"]


@torch.no_grad()
def test_a_block_that_gives_no_number_is_no_small_difference(pair: Pair) -> None:
    moe = load_model(pair[1])
    sparse_layers(moe)[1].mlp.experts.down_proj[0, 0, 0] = float("nan")
    difference = compare_mixture(moe, some_tokens(), torch.Generator().manual_seed(0))["mixture_difference"]
    assert not difference <= BOUND * 1e9


# Wrong folders


def test_folders_in_each_others_place_are_refused(pair: Pair) -> None:
    for folders in (pair[::-1], (pair[0], pair[0]), (pair[1], pair[1])):
        with pytest.raises(CheckpointError, match="dense") as caught:
            verify(*folders, seed=0)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("change", [{"vocab_size": 80}, {"num_hidden_layers": 2}, {"intermediate_size": 40}])
def test_a_parent_of_another_size_is_refused_by_the_name_of_the_size(
    pair: Pair, kind: str, dense: Any, change: dict[str, int], tmp_path: Path
) -> None:
    dense(kind, **change).save_pretrained(tmp_path / "other")
    assert next(iter(change)) in refusal((tmp_path / "other", pair[1]))


def test_another_parent_of_the_same_size_fails_the_proof(pair: Pair, kind: str, dense: Any, tmp_path: Path) -> None:
    dense(kind, seed=1).save_pretrained(tmp_path / "other")
    assert "logits differ" in refusal((tmp_path / "other", pair[1]))
