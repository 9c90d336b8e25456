"""Tests and corrections against scipy, definitions and simulated guessers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from polyclinic.evaluate.statistics.significance import (
    against_odds,
    benjamini_hochberg,
    clustered,
    guessed,
    holm,
    mcnemar,
    signs,
)

MANY = settings(max_examples=50, deadline=None)
odds_lists = st.lists(st.sampled_from([1 / 2, 1 / 4, 1 / 5, 1 / 31]), min_size=1, max_size=40)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def apart(n: int) -> list[str]:
    return [str(number) for number in range(n)]


@MANY
@given(odds_lists)
def test_the_number_of_lucky_guesses_is_poisson_binomial(odds: list[float]) -> None:
    expected = stats.poisson_binom(odds).pmf(np.arange(len(odds) + 1))
    np.testing.assert_allclose(guessed(odds), expected, atol=1e-12)


@MANY
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(2, 6))
def test_equal_odds_give_the_binomial_test(result: tuple[int, int], options: int) -> None:
    correct, n = result
    tails = against_odds([True] * correct + [False] * (n - correct), [1 / options] * n, apart(n))
    for tail, side in zip(tails, ("greater", "less"), strict=True):
        assert tail == pytest.approx(stats.binomtest(correct, n, 1 / options, side).pvalue, rel=1e-9)


def test_a_tail_far_out_keeps_its_digits() -> None:
    tails = against_odds([True] * 60, [0.25] * 30 + [0.5] * 30, apart(60))
    assert tails.above == pytest.approx(0.25**30 * 0.5**30, rel=1e-9)


def test_the_sign_test_is_that_of_scipy_and_doubled_is_mcnemars() -> None:
    for wins, losses in itertools.product(range(8), range(8)):
        found = signs([1] * wins + [-1] * losses + [0] * 3, apart(wins + losses + 3))
        if wins + losses:
            assert found.above == pytest.approx(stats.binomtest(wins, wins + losses, alternative="greater").pvalue)
        assert mcnemar(wins, losses) == pytest.approx(found.doubled)


def test_repeated_guesses_count_once() -> None:
    """Four translations answered with one guess: the exact test alone would find skill in luck."""
    draw, found = np.random.default_rng(0), {"with": 0, "without": 0}
    for _ in range(500):
        right = np.repeat(draw.random(60) < 0.25, 4).tolist()
        names = [str(number // 4) for number in range(240)]
        found["with"] += against_odds(right, [0.25] * 240, names).above < 0.025
        found["without"] += against_odds(right, [0.25] * 240, apart(240)).above < 0.025
    assert found["without"] / 500 > 0.1
    assert found["with"] / 500 < 0.05


def test_the_clustered_test_is_that_of_a_normal_and_mirrors() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 100)
    tails = clustered(values, apart(100))
    assert tails.above == pytest.approx(stats.norm.sf(values.sum() / np.sqrt((values**2).sum())))
    assert clustered(-values, apart(100)) == pytest.approx(tails[::-1])
    assert tails.above < 0.2 < tails.below
    assert clustered([0.0, 0.0], ["a", "b"]) == (0.5, 0.5)


@MANY
@given(p_values)
def test_holm_rejects_step_by_step(values: list[float]) -> None:
    """The definition: in rising order, reject while p <= level / (those left)."""
    found = holm(values)
    order = np.argsort(values, kind="stable")
    for level in (0.05, 0.5):
        rejected = set()
        for step, place in enumerate(order):
            if values[place] > level / (len(values) - step):
                break
            rejected.add(int(place))
        close = any(abs(f - level) < 1e-12 for f in found)
        assert close or {i for i, f in enumerate(found) if f <= level} == rejected


@MANY
@given(p_values)
def test_benjamini_hochberg_rejects_up_to_the_last_that_fits(values: list[float]) -> None:
    found = benjamini_hochberg(values)
    ordered = sorted(values)
    for level in (0.05, 0.5):
        fitting = [p for k, p in enumerate(ordered, start=1) if p <= level * k / len(values)]
        close = any(abs(f - level) < 1e-12 for f in found)
        assert close or [f <= level for f in found] == [bool(fitting) and p <= max(fitting) for p in values]


def test_nothing_needs_no_correction() -> None:
    assert holm([]) == benjamini_hochberg([]) == []
    assert mcnemar(0, 0) == 1
