"""From a curve to a number of layers: planted steps, ramps and troughs, and none where nothing rises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.analyse.depth.place import best_cut, last_layers, rise_of


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("first", range(1, 12))
def test_a_step_is_found_where_it_is(first: int, noise: float) -> None:
    curve = np.r_[np.full(first, 0.2), np.full(12 - first, 0.8)]
    curve = curve + noise * np.random.default_rng(first).uniform(-1, 1, 12)
    curve[0] = 0.1
    assert last_layers(curve) == 12 - first


def test_what_is_high_before_the_trough_does_not_count() -> None:
    assert last_layers(np.array([0.9, 0.8, 0.3, 0.2, 0.2, 0.25, 0.2, 0.7, 0.8])) == 2


def test_a_straight_rise_is_cut_in_its_middle() -> None:
    assert last_layers(np.linspace(0, 1, 10)) == 5


@pytest.mark.parametrize("curve", [np.full(6, 0.4), np.linspace(1, 0, 6), 0.4 + np.linspace(0, 0.04, 6), np.ones(1)])
def test_where_nothing_rises_nothing_is_recommended(curve: np.ndarray) -> None:
    assert last_layers(curve) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_no_other_cut_leaves_smaller_squares(values: list[float]) -> None:
    curve = np.array(values)
    trough = int(curve.argmin())
    cut = best_cut(curve)
    assert cut.trough == trough

    def rest(first: int) -> float:
        return sum(float(((p - p.mean()) ** 2).sum()) for p in (curve[trough:first], curve[first:]))

    squares = {first: rest(first) for first in range(trough + 1, len(curve))}
    if squares:
        assert squares[cut.first] <= min(squares.values()) + 1e-9
        assert cut.rise == pytest.approx(curve[cut.first :].mean() - curve[trough : cut.first].mean())


def test_a_given_cut_before_the_trough_explains_nothing() -> None:
    assert rise_of(np.array([0.5, 0.6, 0.1, 0.9]), 1).explained == 0.0
