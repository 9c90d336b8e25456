"""Probe tokens are the same for every checkpoint, and overlap with the last is a share of picks."""

from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

import stock_mixtures as stock
from polyclinic.analyse import probes
from polyclinic.analyse.probes import probe, probe_rows, saturation
from polyclinic.analyse.sampling import Kept


def kept(lengths: list[int], language: int = 0) -> list[Kept]:
    draw, none = np.random.default_rng(language), np.zeros((2, 0), dtype=np.int16)
    return [
        Kept(f"{language}-{i}", language, 0, draw.integers(stock.VOCABULARY, size=n), none, none[..., None], None)
        for i, n in enumerate(lengths)
    ]


def put(seed: int, model: PreTrainedModel) -> None:
    model.load_state_dict(stock.model("olmoe", seed).state_dict())


def test_probes_take_languages_in_turn_up_to_a_number_of_tokens(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    documents = [*kept([30, 30, 30], 0), *kept([30, 30], 1)]
    monkeypatch.setattr(probes, "MAX_PROBES", 100)
    rows = probe_rows(documents)
    assert [len(row) for row in rows] == [30, 30, 30, 10]
    expected = [documents[i].ids_T.tolist() for i in (0, 3, 1, 4)]
    assert rows == [*expected[:3], expected[3][:10]]


def test_overlap_with_the_last_checkpoint_is_that_of_a_loop(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    documents = [*kept([5, 30, 17], 0), *kept([9, 40], 1)]
    model = stock.model("olmoe")
    steps = [(f"step-{seed}", partial(put, seed)) for seed in (3, 2, 2)]
    result = saturation(model, documents, stock.LAYERS["olmoe"], steps)
    rows = probe_rows(documents)
    routes = [[stock.routed("olmoe", stock.model("olmoe", seed), row) for row in rows] for seed in (3, 2)]
    assert (result["n"], result["layers"]) == (101, [0, 1, 2])
    assert [c["checkpoint"] for c in result["checkpoints"]] == ["step-3", "step-2", "step-2"]
    for layer in range(3):
        shared = first = 0
        for one, other in zip(*routes, strict=True):
            for a, b in zip(one[layer]["picks"].tolist(), other[layer]["picks"].tolist(), strict=True):
                shared += len(set(a) & set(b))
                first += a[0] == b[0]
        found = result["checkpoints"][0]
        assert np.isclose(found["picks"][layer], shared / (101 * stock.PICKS), atol=1e-6)
        assert np.isclose(found["first"][layer], first / 101, atol=1e-6)
    for same in result["checkpoints"][1:]:
        assert same["picks"] == same["first"] == [1.0] * 3
    assert torch.equal(model.lm_head.weight, stock.model("olmoe", 2).lm_head.weight)


def test_probes_come_in_one_order_however_they_are_batched(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rows = probe_rows([*kept([5, 30, 17], 0)])
    model = stock.model("olmoe")
    first, picks = probe(model, rows)
    assert first.shape == (3, 52)
    assert picks.shape == (3, 52, stock.PICKS)
    assert np.array_equal(first, picks[..., 0])  # a softmax router's picks come heaviest first
