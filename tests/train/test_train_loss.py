"""Losses of the head in pieces: those of whole logits, their gradients, and not their memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from polyclinic.corpus.pack.pack import IGNORED
from polyclinic.moe.checkpoint import load_model
from polyclinic.train import loss as chunked
from polyclinic.train.loss import head_gives_losses, shifted

ROW = 4 * 300  # bytes of one token's logits over the small vocabulary


@pytest.fixture(params=["qwen2", "qwen3"])
def model(request: pytest.FixtureRequest, mixtures: dict[str, Path]) -> PreTrainedModel:
    return load_model(mixtures[request.param]).train()


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(300, (3, 17), generator=draw)
    labels = tokens.clone()
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = IGNORED
    return tokens, labels


def whole(model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    logits = model(tokens).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none").view(3, 16)


def ours(model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    with head_gives_losses(model, shifted(labels)):
        return model(tokens).logits


@pytest.mark.parametrize("rows", [1, 5, 17, 50, 51, 1000])
def test_losses_and_gradients_are_those_of_whole_logits(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(chunked, "PIECE_BYTES", rows * ROW)
    tokens, labels = batch()
    expected, got = whole(model, tokens, labels), ours(model, tokens, labels)
    assert got.shape == (3, 17)
    assert not got[:, -1].any()
    torch.testing.assert_close(got[:, :-1], expected, rtol=1e-6, atol=1e-6)
    gradients = []
    for losses in (expected, got):
        model.zero_grad()
        losses.sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in ((n, g) for n, g in gradients[0].items() if g.numel()):
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item())


def test_no_more_than_a_piece_of_the_logits_is_ever_held(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "PIECE_BYTES", 5 * ROW)
    made: list[int] = []
    stock = F.cross_entropy

    def counted(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made.append(len(logits))
        return stock(logits, *args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", counted)
    held: list[torch.Size] = []

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor.shape)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = ours(model, *batch())
    assert max(made) == 5
    assert not [shape for shape in held if shape[-1:] == (300,) and shape != (32, 300)]
    losses.sum().backward()
    assert sorted(made) == sorted(2 * made[: len(made) // 2])


def test_afterwards_the_head_gives_logits_again_even_after_a_fault(model: PreTrainedModel) -> None:
    tokens, labels = batch()
    before = model(tokens).logits
    with pytest.raises(ValueError, match="batch_size"), head_gives_losses(model, shifted(labels)[:, :5]):
        model(tokens)
    assert torch.equal(model(tokens).logits, before)
    assert "forward" not in vars(model.get_output_embeddings())


def test_labels_are_shifted_within_their_row() -> None:
    labels = torch.tensor([[1, 2, 3], [4, IGNORED, 6]])
    assert shifted(labels).tolist() == [[2, 3, IGNORED], [IGNORED, 6, IGNORED]]


def test_under_bf16_pieces_lose_no_more_than_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against fp32: sums over pieces in bf16 would be several times as far off (measured: 7 times at 300 pieces)."""
    torch.manual_seed(0)
    head, states, labels = torch.nn.Linear(64, 300, bias=False), torch.randn(1, 2400, 64), torch.randint(300, (2400,))

    def gradient(pieces: int, half: bool) -> torch.Tensor:
        monkeypatch.setattr(chunked, "PIECE_BYTES", 4 * 300 * (2400 // pieces))
        head.weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = chunked._losses(head, labels, states)
        losses.mean().backward()
        assert head.weight.grad is not None
        return head.weight.grad.clone()

    exact = gradient(1, half=False)
    far = [float((gradient(pieces, half=True) - exact).norm() / exact.norm()) for pieces in (1, 300)]
    assert 0 < far[1] < 1.1 * far[0]
