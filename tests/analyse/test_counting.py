"""Counts of routed text equal a recount, token by token, of each document alone."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import stock_mixtures as stock
from polyclinic.analyse.counting import DECILES, Counts, Text
from polyclinic.analyse.route import route
from polyclinic.analyse.sampling import Sample
from polyclinic.analyse.tally import Tally
from polyclinic.analyse.texts import BUCKETS
from polyclinic.moe import forward

LANGUAGES = ("ar", "en", "th")
LENGTHS = (1, 2, 3, 17, 17, 40, 41, 90)


def texts(special: bool = False) -> list[Text]:
    """Documents of three languages in a few buckets; with `special`, the first token and each seventh do not count."""
    draw = np.random.default_rng(0)
    out = []
    for number, length in enumerate(LENGTHS * 3):
        ids = draw.integers(stock.VOCABULARY, size=length).tolist()
        counts = [not special or bool(i % 7) for i in range(length)]
        if any(counts):
            bucket = number % 3 * BUCKETS + (number * 5) % 4
            out.append(Text(f"d{number}", number % 3, bucket, number * 977 % 64, ids, counts))
    return out


def counted(kind: str, rows: list[Text], quota: int = 10**6) -> Tally:
    built = stock.model(kind)
    sample = Sample(len(stock.LAYERS[kind]), len(LANGUAGES), quota)
    counts = Counts(stock.LAYERS[kind], stock.EXPERTS, LANGUAGES, [2, 4, -1], sample=sample)
    route(built, [rows[:9], rows[9:]], counts)
    return counts.tally()


def tokens_of(kind: str, rows: list[Text]) -> Iterator[tuple[Text, int, int, list[dict[str, np.ndarray]]]]:
    """Yield each counted token: its text, place among counted ones, place among all, and its routes by layer."""
    built = stock.model(kind)
    for text in rows:
        layers = stock.routed(kind, built, text.ids)
        for place, index in enumerate(np.flatnonzero(text.counts)):
            yield text, place, int(index), [{key: value[index] for key, value in layer.items()} for layer in layers]


def recount(kind: str, rows: list[Text]) -> dict[str, np.ndarray]:
    """Count everything with loops over tokens, buckets numbered as they stand."""
    size, experts, many = len(stock.LAYERS[kind]), stock.EXPERTS, len(LANGUAGES)
    out = {
        "first_BLE": np.zeros((many * BUCKETS, size, experts), int),
        "picks_BLE": np.zeros((many * BUCKETS, size, experts), int),
        "tokens_B": np.zeros(many * BUCKETS, int),
        "co_LEE": np.zeros((size, experts, experts), int),
        "next_GLEE": np.zeros((many, size - 1, experts, experts), int),
        "margin_GL": np.zeros((many, size)),
        "entropy_GL": np.zeros((many, size)),
        "position_LPE": np.zeros((size, DECILES, experts), int),
        "own_GL": np.zeros((many, size), int),
    }
    for text, place, _, layers in tokens_of(kind, rows):
        out["tokens_B"][text.bucket] += 1
        firsts = []
        for at, layer in enumerate(layers):
            probs, picks = layer["probs"], layer["picks"].tolist()
            first = picks[int(np.argmax(layer["weights"]))]
            firsts.append(first)
            out["first_BLE"][text.bucket, at, first] += 1
            out["position_LPE"][at, 10 * place // sum(text.counts), first] += 1
            for one in picks:
                out["picks_BLE"][text.bucket, at, one] += 1
                for other in picks:
                    out["co_LEE"][at, one, other] += 1
            rest = [probs[e] for e in range(experts) if e not in picks]
            out["margin_GL"][text.language, at] += min(probs[picks]) - max(rest)
            out["entropy_GL"][text.language, at] -= (probs * np.log(probs)).sum()
            out["own_GL"][text.language, at] += [2, 4, -1][text.language] in picks
        for at, (one, other) in enumerate(itertools.pairwise(firsts)):
            out["next_GLEE"][text.language, at, one, other] += 1
    full = out["tokens_B"] > 0
    return {key: value[full] if "B" in key.rpartition("_")[2] else value for key, value in out.items()}


@pytest.mark.parametrize("kind", stock.CONFIGS)
def test_every_count_is_that_of_a_loop_over_tokens_run_alone(kind: str) -> None:
    rows = texts(special=True)
    tally, truth = counted(kind, rows), recount(kind, rows)
    for name, value in truth.items():
        found = getattr(tally, name)
        assert found.shape == value.shape, name
        assert np.allclose(found, value, atol=1e-3 if found.dtype == float else 0), name
    assert tally.layers == tuple(stock.LAYERS[kind])
    assert (tally.num_experts, tally.top_k, tally.languages) == (stock.EXPERTS, stock.PICKS, LANGUAGES)
    buckets = sorted({text.bucket for text in rows})
    assert (tally.bucket_language * BUCKETS + tally.bucket_number).tolist() == buckets


def test_padding_and_special_tokens_enter_no_count() -> None:
    rows = texts(special=True)
    tally = counted("olmoe", rows)
    counting = sum(sum(text.counts) for text in rows)
    assert 0 < counting < sum(len(text.ids) for text in rows)
    assert tally.num_tokens == counting
    assert (tally.first_BLE.sum(2) == tally.tokens_B[:, None]).all()
    assert (tally.picks_BLE.sum(2) == stock.PICKS * tally.tokens_B[:, None]).all()
    assert (tally.position_LPE.sum((1, 2)) == counting).all()
    assert (tally.next_GLEE.sum((0, 2, 3)) == counting).all()
    assert (tally.shared.counts.first_N.sum(), tally.top_tokens.total_LES.max() > 0) == (3 * counting, True)


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_how_documents_are_batched_changes_nothing(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    expected = counted("glm4_moe", texts(), quota=60)
    monkeypatch.setattr(forward, "BATCH_TOKENS", budget)
    found = counted("glm4_moe", texts(), quota=60)
    for name in ("first_BLE", "picks_BLE", "co_LEE", "next_GLEE", "position_LPE", "tokens_B"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert np.allclose(found.margin_GL, expected.margin_GL)
    for name in ("ids_M", "token_R", "bucket_R", "pair_token_Q"):
        assert np.array_equal(getattr(found.shared, name), getattr(expected.shared, name)), name
    assert np.array_equal(found.shared.counts.first_N, expected.shared.counts.first_N)


def test_scores_that_cannot_be_read_are_not_a_number_and_stop_nothing() -> None:
    built = stock.model("qwen3_moe")
    for router in stock.routers("qwen3_moe", built):
        router.register_forward_hook(lambda _, __, out: (out[0], out[1], torch.full_like(out[2], 6)))
    counts = Counts([1, 2], stock.EXPERTS, LANGUAGES, [6, 6, -1])
    route(built, [texts()], counts)
    tally = counts.tally()
    assert np.isnan(tally.margin_GL).all()
    assert np.isnan(tally.entropy_GL).all()
    assert (tally.picks_BLE[..., 6] == tally.tokens_B[:, None]).all()  # three picks of one expert count it once
    assert (tally.own_GL[:2] == tally.own_GL[0, 0]).all()
    assert (tally.own_GL[2] == 0).all()
