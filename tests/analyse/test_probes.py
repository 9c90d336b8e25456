"""Probe tokens are the same for every checkpoint, and so is the order of their picks."""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import stock_mixtures as stock
from polyclinic.analyse import probes
from polyclinic.analyse.probes import picks_of, probe_rows
from polyclinic.analyse.sampling import Kept
from polyclinic.moe import forward


def kept(lengths: list[int], language: int = 0) -> list[Kept]:
    draw, none = np.random.default_rng(language), np.zeros((2, 0), dtype=np.int16)
    return [
        Kept(f"{language}-{i}", language, 0, draw.integers(stock.VOCABULARY, size=n), none, none[..., None], None)
        for i, n in enumerate(lengths)
    ]


def put(kind: str, seed: int, model: PreTrainedModel) -> None:
    model.load_state_dict(stock.model(kind, seed).state_dict())


def test_probes_take_languages_in_turn_up_to_a_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [*kept([30, 30, 30], 0), *kept([30, 30], 1)]
    monkeypatch.setattr(probes, "MAX_PROBES", 100)
    rows = probe_rows(documents)
    assert [len(row) for row in rows] == [30, 30, 30, 10]
    expected = [documents[i].ids_T.tolist() for i in (0, 3, 1, 4)]
    assert rows == [*expected[:3], expected[3][:10]]


@pytest.mark.parametrize("kind", ["olmoe", "deepseek_v3"])
def test_each_checkpoint_routes_the_same_tokens_in_one_order(kind: str) -> None:
    documents = [*kept([5, 30, 17], 0), *kept([9, 40], 1)]
    model = stock.model(kind)
    found = picks_of(model, documents, [(f"step-{seed}", partial(put, kind, seed)) for seed in (3, 2)])
    rows = sorted(probe_rows(documents), key=len)  # as batches take them
    assert list(found) == ["step-3", "step-2"]
    for seed in (3, 2):
        by_hand = [stock.routed(kind, stock.model(kind, seed), row) for row in rows]
        for layer in range(len(stock.LAYERS[kind])):
            picks = np.concatenate([document[layer]["picks"] for document in by_hand])
            weights = np.concatenate([document[layer]["weights"] for document in by_hand])
            heaviest_first = np.take_along_axis(picks, np.argsort(-weights, 1), 1)
            assert np.array_equal(found[f"step-{seed}"][:, layer], heaviest_first)
    assert torch.equal(model.lm_head.weight, stock.model(kind, 2).lm_head.weight)


def test_how_probes_are_batched_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, model = kept([5, 30, 17]), stock.model("olmoe")
    steps = [("now", lambda _: None)]
    expected = picks_of(model, documents, steps)["now"]
    monkeypatch.setattr(forward, "BATCH_TOKENS", 1)
    assert np.array_equal(picks_of(model, documents, steps)["now"], expected)
    assert expected.shape == (52, 3, stock.PICKS)
