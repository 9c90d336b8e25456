"""Relevance is what the loss would change by; padding, batches and hooks leave no trace."""

from typing import Any

import numpy as np
import pytest
import torch
from planted_dense import HIDDEN, LAYERS, UNITS, planted, texts
from transformers import PreTrainedModel

from polyclinic.analyse.depth import reading
from polyclinic.analyse.depth.reading import read
from polyclinic.analyse.depth.sample import bucket
from polyclinic.analyse.passages import Passage
from polyclinic.progress import Silent


def one(model: PreTrainedModel, passage: Passage) -> reading.Reading:
    return read(model, [passage, Passage("zz", "other", [1, 2])], Silent())


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    made = planted(3)
    with torch.no_grad():  # tokens meet, so that a unit's gradient comes from later tokens as well
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight.normal_(std=0.2)
    return made


def test_relevance_is_the_first_order_change_of_the_loss_when_a_unit_is_switched_off(model: Any) -> None:
    tokens, layer, step = [3, 40, 7, 11], 2, 0.02
    found = one(model, Passage("aa", "g", tokens)).relevance_BGLU.sum(0)[0, layer]

    @torch.no_grad()
    def loss(place: int, unit: int, scale: float) -> float:
        def change(_: Any, args: Any) -> Any:
            hidden = args[0].clone()
            hidden[0, place, unit] *= scale
            return (hidden,)

        handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(change)
        ids = torch.tensor([tokens])
        out = model(input_ids=ids, labels=ids).loss.item() * (len(tokens) - 1)
        handle.remove()
        return out

    for unit in (0, 7, 19, 33):
        slopes = [(loss(t, unit, 1 + step) - loss(t, unit, 1 - step)) / (2 * step) for t in range(len(tokens))]
        assert found[unit] == pytest.approx(np.abs(slopes).sum(), abs=5e-4, rel=5e-3)
    assert found.max() > 0.01


@torch.no_grad()
def test_activity_and_states_are_means_over_the_tokens_of_a_text(model: Any) -> None:
    tokens = [3, 40, 7, 11, 60]
    both = [Passage("aa", "g", tokens), Passage("bb", "g", [5, 6, 1, 2, 3, 4, 5, 9]), Passage("aa", "h", [1, 2, 3])]
    found = read(model, both, Silent())
    kept: list[torch.Tensor] = []
    handle = model.model.layers[4].mlp.down_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    states = model(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states
    handle.remove()
    np.testing.assert_allclose(
        found.activity_BGLU[bucket("g"), 0, 4], kept[0].abs().sum(1)[0].numpy(), rtol=1e-4, atol=1e-5
    )
    assert (found.groups, found.has_GN.tolist()) == (("g",), [[True], [True]])
    for layer in range(LAYERS - 1):  # the last of the model's own states stands behind the final norm
        np.testing.assert_allclose(found.states_GNLH[0, 0, layer], states[layer + 1][0].mean(0), rtol=1e-4, atol=1e-5)
    assert found.states_GNLH.shape == (2, 1, LAYERS, HIDDEN)


@pytest.mark.parametrize("most", [1, 100_000])
def test_how_texts_are_batched_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    found = [p._replace(tokens=p.tokens * 4) for p in texts(12)]
    expected = read(model, found, Silent())
    monkeypatch.setattr(reading, "LEAST", most)
    monkeypatch.setattr(reading, "MOST", most)
    monkeypatch.setattr(reading, "LOGITS", 1)
    again = read(model, found, Silent())
    for name in ("relevance_BGLU", "activity_BGLU", "states_GNLH"):
        np.testing.assert_allclose(getattr(again, name), getattr(expected, name), rtol=2e-3, atol=1e-4)
    assert np.array_equal(again.tokens_BG, expected.tokens_BG)
    assert expected.tokens_BG.sum() == sum(len(p.tokens) for p in found)


def test_memory_is_bounded_by_reading_every_so_many_th_unit(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(12)
    whole = read(model, found, Silent())
    monkeypatch.setattr(reading, "MEMORY", 1 << 12)
    monkeypatch.setattr(reading, "FEWEST_UNITS", 10)  # more than there is room for
    part = read(model, found, Silent())
    assert part.units == UNITS
    assert part.relevance_BGLU.shape[-1] == 10
    chosen = np.linspace(0, UNITS - 1, 10).astype(int)
    np.testing.assert_allclose(part.relevance_BGLU, whole.relevance_BGLU[..., chosen], rtol=1e-4)
    assert part.states_GNLH.nbytes <= 1 << 12
    assert 0 < len(part.groups) < len(whole.groups) == 12


def test_nothing_stays_behind_in_the_model() -> None:
    model = planted(3)
    read(model, texts(2), Silent())
    with pytest.raises(IndexError):
        one(model, Passage("aa", "g", [1, 9999]))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
