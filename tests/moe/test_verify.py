"""The proofs pass where the mixture is right, and each sees the fault that it is there for."""

import json
import re
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
from polyclinic.moe.blueprint import Mixture
from polyclinic.moe.checkpoint import load_model, write_families
from polyclinic.moe.skeleton import Parts
from polyclinic.moe.verify import (
    BOUND,
    check_copies,
    compare,
    equal_by_design,
    mixture_of,
    plain_mixture,
    prove_blocks,
    run,
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


@torch.no_grad()
def test_a_right_mixture_is_proven_with_its_figures(pair: Pair) -> None:
    facts = verify(*pair, seed=0)
    dense, moe = (load_model(folder) for folder in pair)
    expected, got = dense(some_tokens()).logits, moe(some_tokens()).logits
    assert facts["equal_by_design"]
    assert facts["difference"] == (expected - got).abs().max().item() <= 2e-6 * facts["largest_logit"]
    assert facts["largest_logit"] == expected.abs().max().item()
    assert facts["dense_batch_difference"] == (expected[:1] - dense(some_tokens()[:1]).logits).abs().max().item()
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]
    assert facts["largest_output"] > 0
    assert verify(*pair, seed=0) == facts


@torch.no_grad()
def test_the_difference_in_bf16_is_reported(pair: Pair) -> None:
    dense, moe = (load_model(folder, torch.bfloat16)(some_tokens()).logits for folder in pair)
    assert verify(*pair, seed=0)["bf16_difference"] == (dense.float() - moe.float()).abs().max().item()


def test_every_tensor_that_has_a_parent_is_counted(pair: Pair) -> None:
    dense = set(load_model(pair[0]).state_dict())
    experts = {n for n in dense if ".mlp." in n and "layers.0." not in n}
    assert verify(*pair, seed=0)["copied_tensors"] == len(dense - experts) + 5 * len(experts)


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
    """The lowest bit of its last number, changed in the file itself; of each kind of tensor in one of the layers."""
    (path,) = pair[1].glob("*.safetensors")
    sound = path.read_bytes()
    begin = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:begin])
    header.pop("__metadata__", None)
    parentless = ("mlp.gate.", "shared_expert")
    named = [n for n in header if not any(p in n for p in parentless)]
    assert len(named) > 40
    mixture = mixture_of(*pair)
    kinds: dict[str, list[str]] = {}
    for name in sorted(named):
        kinds.setdefault(re.sub(r"\d+", "N", name), []).append(name)
    for number, of_kind in enumerate(kinds.values()):
        name = of_kind[number % len(of_kind)]
        assert header[name]["dtype"] == "F32"
        changed = bytearray(sound)
        changed[begin + header[name]["data_offsets"][1] - 4] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ProofError, match=f"{name} is no copy"):
            check_copies(*pair, mixture)
    path.write_bytes(sound)
    check_copies(*pair, mixture)


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
    assert f"{name} is no copy" in refusal(pair)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_first_layer_that_differs_is_named(pair: Pair, change_tensors: Any, layer: int) -> None:
    name = f"model.layers.{layer}.self_attn.o_proj.weight"
    change_tensors(pair[1], change(name, lambda t: t + 0.05 * torch.randn_like(t)))
    assert f"first at layer {layer};" in refusal(pair)


def test_no_layer_differs_where_only_the_output_head_does(pair: Pair, change_tensors: Any) -> None:
    change_tensors(pair[1], change("lm_head.weight", lambda t: 2 * t))
    assert "behind the last layer" in refusal(pair)


# Wrong routing


def test_weights_that_do_not_sum_to_one_fail_the_proof_at_the_first_sparse_layer(
    pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = STOCK[kind][0].forward

    def halved(router: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, weights, picks = stock(router, states)
        return logits, weights / 2, picks

    monkeypatch.setattr(STOCK[kind][0], "forward", halved)
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


def assert_hidden_from_logits(pair: Pair) -> None:
    facts = compare(*(run(Parts(folder), some_tokens()) for folder in pair))
    assert facts["difference"] <= BOUND * facts["largest_logit"]


def test_a_block_that_gives_no_number_is_no_small_difference(
    pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, calls = STOCK[kind][1].forward, []

    def spoiled(self: Any, *args: Any) -> Tensor:
        calls.append(self)
        out = stock(self, *args)
        return out * float("nan") if len(calls) == 4 else out  # two layers, each once as it is and once apart

    monkeypatch.setattr(STOCK[kind][1], "forward", spoiled)
    with pytest.raises(ProofError, match="the block of layer 2"):
        prove_blocks(pair[1], seed=0)


# Mixtures that differ on purpose


@pytest.mark.parametrize(
    ("mixture", "equal"),
    [
        (Mixture((1,), 5), True),
        (Mixture((1,), 5, shared_expert="zero", router_init="zero"), True),
        (Mixture((1,), 5, shared_expert="copy"), False),
        (Mixture((1,), 5, normalise=False), False),
        (Mixture((1,), 5, noise=0.1), False),
        (Mixture((1,), 5, reinit=0.5), False),
    ],
)
def test_what_must_equal_its_parent_is_known(mixture: Mixture, equal: bool) -> None:
    assert equal_by_design(mixture) is equal


def test_experts_said_to_have_been_moved_may_differ_and_all_else_may_not(
    pair: Pair, change_tensors: Any, change_config: Any
) -> None:
    up = "model.layers.1.mlp.experts.3.up_proj.weight"
    change_tensors(pair[1], change(up, lambda t: t + 0.05 * torch.randn_like(t)))
    assert "logits differ" in refusal(pair)
    write_families(pair[1], {"format": 1, "made": {"noise": 0.1}})
    facts = verify(*pair, seed=0)
    assert not facts["equal_by_design"]
    assert facts["difference"] > 2e-6 * facts["largest_logit"]
    norm = "model.layers.1.input_layernorm.weight"
    change_tensors(pair[1], change(norm, lambda t: t + 1e-3))
    assert f"{norm} is no copy" in refusal(pair)


def test_a_mixture_with_weights_as_the_paper_leaves_them_is_proven_but_for_its_logits(
    pair: Pair, change_config: Any
) -> None:
    change_config(pair[1], norm_topk_prob=False)
    facts = verify(*pair, seed=0)
    assert not facts["equal_by_design"]
    assert facts["difference"] > 2e-6 * facts["largest_logit"]
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]


@pytest.mark.parametrize("start", ["zero", "copy"])
def test_a_mixture_with_a_shared_expert_is_proven(tmp_path: Path, dense: Any, converted: Any, start: str) -> None:
    dense("qwen2").save_pretrained(tmp_path / "dense")
    pair = tmp_path / "dense", converted(tmp_path / "dense", shared_expert=start)
    write_families(pair[1], {"format": 1, "made": {"shared_expert": start}})
    facts = verify(*pair, seed=0)
    assert facts["equal_by_design"] is (start == "zero")
    assert (facts["difference"] <= 2e-6 * facts["largest_logit"]) is (start == "zero")


def test_a_fault_that_a_silent_shared_expert_hides_fails_the_proof(
    tmp_path: Path, dense: Any, converted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense("qwen2").save_pretrained(tmp_path / "dense")
    pair = tmp_path / "dense", converted(tmp_path / "dense", shared_expert="zero")
    block = modeling_qwen2_moe.Qwen2MoeSparseMoeBlock
    stock = block.forward
    monkeypatch.setattr(block, "forward", lambda self, x: stock(self, x) + 0.5 * self.shared_expert(x))
    assert_hidden_from_logits(pair)
    assert "plain loop" in refusal(pair)


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_plain_loop_equals_the_stock_block_with_a_shared_expert(mixture: Any, top_k: int) -> None:
    model = mixture("qwen2", num_experts_per_tok=top_k, shared_expert_intermediate_size=24)
    states = torch.randn(1, 20, 32)
    for layer in sparse_layers(model).values():
        expected = layer.mlp(states)[0]
        got = plain_mixture(layer.mlp, states[0], top_k, normalise=True)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-6 * expected.abs().max().item())
        for parameter in layer.mlp.shared_expert.parameters():
            parameter.zero_()
        assert (plain_mixture(layer.mlp, states[0], top_k, normalise=True) - got).abs().max() > 1e-3


# The proof that needs no parent


def test_blocks_are_proven_without_a_parent(pair: Pair) -> None:
    facts = prove_blocks(pair[1], seed=0)
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]
    assert facts["largest_output"] > 0


def test_the_proof_leaves_the_files_as_they_are(pair: Pair) -> None:
    before = {p: p.read_bytes() for folder in pair for p in folder.iterdir()}
    verify(*pair, seed=0)
    assert {p: p.read_bytes() for folder in pair for p in folder.iterdir()} == before


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
