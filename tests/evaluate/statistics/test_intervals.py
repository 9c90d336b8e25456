"""Intervals and chance lines against their definitions and a known implementation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from polyclinic.evaluate.statistics import Z95, best_constant, chance, paired_change, wilson

MANY = settings(max_examples=50, deadline=None)
results = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@MANY
@given(results)
def test_wilson_is_that_of_scipy(result: tuple[int, int]) -> None:
    expected = binomtest(*result).proportion_ci(method="wilson")
    assert wilson(*result) == pytest.approx((expected.low, expected.high), abs=1e-12)


@MANY
@given(results)
def test_the_bounds_are_the_shares_that_lie_just_z_errors_away(result: tuple[int, int]) -> None:
    correct, n = result
    for bound in wilson(correct, n):
        if 0 < bound < 1:
            assert abs(correct / n - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / n), abs=1e-7)


@MANY
@given(results)
def test_the_interval_holds_the_share_and_mirrors(result: tuple[int, int]) -> None:
    correct, n = result
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


def test_nothing_asked_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_z_covers_95_percent_of_a_normal() -> None:
    assert math.erf(Z95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-12)


def test_chance_is_what_blind_guessing_scores() -> None:
    options = [2, 4, 4, 5, 3]
    draw = np.random.default_rng(0)
    hits = sum(int((draw.integers(n, size=4000) == 0).sum()) for n in options)
    assert chance(options) == pytest.approx(hits / 20_000, abs=0.015)
    assert chance([4] * 9) == 0.25


@MANY
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_no_constant_answer_beats_the_best_one(gold: list[int]) -> None:
    shares = [sum(g == answer for g in gold) / len(gold) for answer in range(5)]
    assert best_constant(gold) == max(shares)


def test_a_change_is_that_of_the_ratio_and_its_interval_that_of_scipys_bootstrap() -> None:
    draw = np.random.default_rng(1)
    before, weights = draw.gamma(3.0, 30.0, 60), draw.integers(5, 60, 60)
    after = before - 0.3 * weights + draw.normal(0, 5, 60)

    def ratio(gains: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
        return gains.sum(axis=axis) / sizes.sum(axis=axis)

    found = paired_change(before, after, weights, [str(i) for i in range(60)], 4000, 0)
    expected = bootstrap((after - before, weights), ratio, paired=True, method="percentile", n_resamples=4000, rng=2)
    assert found.change == pytest.approx((after - before).sum() / weights.sum())
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval, abs=0.1 * width)
    assert found.clusters == 60


def test_items_of_one_group_are_drawn_together() -> None:
    before, after = [0.0] * 40, [1.0, -1.0] * 20
    apart = paired_change(before, after, [1.0] * 40, [str(i) for i in range(40)], 500, 0)
    joined = paired_change(before, after, [1.0] * 40, [str(i // 2) for i in range(40)], 500, 0)
    assert apart.high > 0.1
    assert (joined.low, joined.high, joined.clusters) == (0.0, 0.0, 20)
