"""Baselines against counting all answers, and against a guesser."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.evaluate.statistics.guessing import best_constant, chance, expected_hamming, hamming, odds

MANY = settings(max_examples=50, deadline=None)


def subsets(options: int) -> list[tuple[int, ...]]:
    return [s for size in range(1, options + 1) for s in itertools.combinations(range(options), size)]


def test_chance_is_what_blind_guessing_scores() -> None:
    options = [2, 4, 4, 5, 3]
    draw = np.random.default_rng(0)
    hits = sum(int((draw.integers(n, size=4000) == 0).sum()) for n in options)
    assert chance(options) == pytest.approx(hits / 20_000, abs=0.015)
    assert chance([4] * 9) == 0.25


@pytest.mark.parametrize("options", range(1, 8))
def test_of_several_answers_one_set_of_all_is_right(options: int) -> None:
    assert odds(options, several=True) == pytest.approx(1 / len(subsets(options)))
    assert odds(options) == 1 / options


@pytest.mark.parametrize(("options", "right"), [(o, r) for o in range(1, 7) for r in range(1, o + 1)])
def test_the_expected_hamming_score_is_the_mean_over_all_sets(options: int, right: int) -> None:
    gold = set(range(right))
    mean = np.mean([len(gold & set(s)) / len(gold | set(s)) for s in subsets(options)])
    assert expected_hamming(options, right) == pytest.approx(mean)


def test_hamming_is_the_shared_part() -> None:
    assert hamming((0, 2), (0, 1)) == pytest.approx(1 / 3)
    assert hamming((1, 0), (0, 1)) == 1
    assert hamming(None, (0, 1)) == 0


@MANY
@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=40))
def test_no_constant_answer_beats_the_best_one(gold: list[set[int]]) -> None:
    found = best_constant(tuple(one) for one in gold)
    shares = {s: sum(one == set(s) for one in gold) / len(gold) for s in subsets(5)}
    assert found.share == max(shares.values()) == shares[found.answer]
    assert found.letters == ", ".join("ABCDE"[place] for place in found.answer)


def test_of_equal_constants_the_first_is_named() -> None:
    assert best_constant([(2,), (1,), (2,), (1,)]).answer == (1,)
