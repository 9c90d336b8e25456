"""Intervals against their definitions, a known implementation, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from polyclinic import intervals
from polyclinic.intervals import Z95, cluster_sums, paired_change, resampled, wilson

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


def test_sums_are_those_of_each_cluster() -> None:
    sums = cluster_sums(["b", "a", "b"], [1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert sums.tolist() == [[2.0, 1.0], [5.0, 2.0]]


@pytest.mark.parametrize("at_once", [7, 100, 10**6])
def test_draws_do_not_depend_on_how_many_are_held_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(0).normal(size=(20, 2))
    draws = np.random.default_rng(3).integers(20, size=(50, 20))
    monkeypatch.setattr(intervals, "AT_ONCE", at_once)
    np.testing.assert_allclose(resampled(sums, 50, 3), sums[draws].sum(axis=1))


def test_drawing_kinds_of_clusters_is_drawing_clusters() -> None:
    draw = np.random.default_rng(0)
    few = draw.integers(0, 2, size=(400, 1)).astype(float)  # two kinds: drawn as a multinomial
    many = few + 1e-9 * np.arange(400)[:, None]  # all differ: drawn one by one
    a, b = (resampled(sums, 4000, 1)[:, 0] for sums in (few, many))
    share = few.mean()
    for totals in (a, b):
        assert totals.mean() == pytest.approx(400 * share, abs=0.6)
        assert totals.std() == pytest.approx(math.sqrt(400 * share * (1 - share)), rel=0.05)


@pytest.mark.parametrize(("size", "alike"), [(1, 0.0), (4, 0.7)])
def test_a_bootstrap_interval_holds_the_truth_in_95_of_100_cases(size: int, alike: float) -> None:
    """Clusters of four whose items mostly share their fate; without clustering two thirds would be held."""
    draw, held, apart = np.random.default_rng(5), 0, 0
    names = [str(number // size) for number in range(150 * size)]
    for seed in range(400):
        own, common = draw.random((150, size)) < 0.4, draw.random((150, 1)) < 0.4
        values = np.where(draw.random((150, size)) < alike, common, own).ravel().astype(float)
        low, high = intervals.bootstrap(values, names, seed, 400)
        held += low <= 0.4 <= high
        low, high = intervals.bootstrap(values, [str(n) for n in range(len(values))], seed, 400)
        apart += low <= 0.4 <= high
    assert 0.915 <= held / 400 <= 0.98
    assert (apart / 400 < 0.85) is (size > 1)


def test_wilson_holds_the_truth_in_95_of_100_cases_on_average() -> None:
    draw = np.random.default_rng(6)
    truths = draw.uniform(0.1, 0.9, 4000)
    bounds = [wilson(int(k), 60) for k in draw.binomial(60, truths)]
    held = np.mean([low <= p <= high for p, (low, high) in zip(truths, bounds, strict=True)])
    assert 0.94 <= held <= 0.96
