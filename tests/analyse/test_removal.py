"""Experts taken out of the routing: as if they had been cut out of the weights, and nothing else changed."""

import copy
from typing import Any

import pytest
import torch
from six_mixtures import OWN, lacking, stock
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from polyclinic.analyse.removal import follows, routers, without
from polyclinic.errors import CheckpointError

KINDS = sorted(OWN)
SIGMOID = ("deepseek_v3", "glm4_moe")


def tokens(rows: int = 4, length: int = 12) -> Tensor:
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Any, ids: Tensor | None = None) -> Tensor:
    return model(input_ids=tokens() if ids is None else ids, use_cache=False).logits


@torch.no_grad()
def routed(model: Any, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the router of a layer hands to its experts: weights and picks, and its logits."""
    seen: list[Any] = []
    block = model.get_decoder().layers[layer].mlp
    handles = [
        block.experts.register_forward_pre_hook(lambda _, args: seen.append((args[2], args[1]))),
        block.gate.register_forward_hook(lambda *a: seen.append(a[2][0])),
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    out, (weights, picks) = seen
    return weights, picks, out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("expert", [0, 3])
def test_a_dropped_expert_is_one_cut_out_of_the_weights(kind: str, expert: int) -> None:
    model = stock(kind)
    with without(model, {1: [expert]}):
        found = logits(model)
    torch.testing.assert_close(found, logits(lacking(model, 1, expert)), atol=1e-4, rtol=1e-4)
    assert (found - logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_zeroed_expert_is_one_whose_output_is_zero(kind: str) -> None:
    model = stock(kind)
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.get_decoder().layers[0].mlp.experts.down_proj[2].zero_()
    with without(model, {0: [2]}, "zero"):
        found = logits(model)
    torch.testing.assert_close(found, logits(silent), atol=1e-5, rtol=1e-5)
    assert (found - logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_did_not_pick_the_expert_keep_picks_and_weights_to_the_last_bit(kind: str) -> None:
    model = stock(kind)
    before, picks, _ = routed(model, 0)
    with without(model, {0: [1]}):
        after, new, _ = routed(model, 0)
    hit = (picks == 1).any(-1)
    assert 0 < hit.sum() < len(hit)
    assert torch.equal(before[~hit], after[~hit])
    assert torch.equal(picks[~hit], new[~hit])
    assert not (new == 1).any()
    torch.testing.assert_close(after.sum(-1), before.sum(-1))


def test_weights_that_a_model_does_not_normalise_keep_their_sum() -> None:
    model = stock("olmoe", norm_topk_prob=False)
    before, picks, scores = routed(model, 0)
    with without(model, {0: [1]}):
        after, new, _ = routed(model, 0)
    assert before.sum(-1).max() < 0.999
    torch.testing.assert_close(after.sum(-1), before.sum(-1))
    hit = (picks == 1).any(-1)
    ratio = scores.softmax(-1).gather(1, new)
    torch.testing.assert_close((after / after.sum(-1, keepdim=True))[hit], (ratio / ratio.sum(-1, keepdim=True))[hit])


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_expert_left_it_gets_the_whole_weight(kind: str) -> None:
    model = stock(kind)
    before, _, _ = routed(model, 0)
    with without(model, {0: [0, 1, 3, 4]}):
        after, picks, _ = routed(model, 0)
    own = torch.where(picks == 2, after, 0.0).sum(-1)
    torch.testing.assert_close(own, before.sum(-1))
    torch.testing.assert_close(after.sum(-1), before.sum(-1))


@pytest.mark.parametrize("kind", SIGMOID)
def test_the_next_best_is_sought_in_the_groups_the_router_opened(kind: str) -> None:
    """Four groups of three, two open: the next best of the open ones, though a closed one scores higher."""
    model = stock(kind, n_group=4, topk_group=2, n_routed_experts=12, num_local_experts=12)
    before, picks, scores = routed(model, 0)
    gate = routers(model)[0]
    choice = scores.sigmoid() + gate.e_score_correction_bias
    with without(model, {0: [4]}):
        _, new, _ = routed(model, 0)
    hits, elsewhere = (picks == 4).any(-1).nonzero().flatten().tolist(), 0
    assert hits
    for token in hits:
        best = choice[token].view(4, 3).topk(2, dim=-1).values.sum(-1).topk(2).indices.tolist()
        inside = [e for e in range(12) if e // 3 in best and e != 4]
        expected = sorted(inside, key=lambda e: -choice[token, e].item())[:2]
        anywhere = sorted((e for e in range(12) if e != 4), key=lambda e: -choice[token, e].item())[:2]
        assert sorted(new[token].tolist()) == sorted(expected)
        elsewhere += sorted(expected) != sorted(anywhere)
    assert elsewhere
    assert follows(gate, scores, before, picks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_that_is_not_the_routers_is_seen(kind: str) -> None:
    model = stock(kind)
    weights, picks, scores = routed(model, 0)
    gate = routers(model)[0]
    assert follows(gate, scores, weights, picks)
    assert not follows(gate, -scores, weights, picks)
    assert not follows(gate, scores, weights.flip(-1), picks)


def test_nothing_stays_behind_after_a_block_or_a_fault() -> None:
    model = stock("mixtral")
    before = logits(model)
    with pytest.raises(RuntimeError, match="stop"), without(model, {0: [1], 1: [0, 2]}):
        raise RuntimeError("stop")
    assert torch.equal(logits(model), before)
    assert not any(router._forward_hooks for router in routers(model).values())


def test_a_dense_model_is_refused_in_one_line() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    with pytest.raises(CheckpointError, match="llama: is not a mixture"):
        routers(LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)))
