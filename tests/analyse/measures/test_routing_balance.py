"""Balance against known values and an independent formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import entropy

from made_tallies import tally, world
from polyclinic.analyse.measures.balance import balance, gini, max_violation

MANY = settings(max_examples=50, deadline=None)
loads = arrays.arrays(np.float64, st.integers(1, 12), elements=st.integers(0, 1000).map(float)).filter(
    lambda load: load.sum() > 0
)
SHARE = np.array([0.5, 0.25, 0.125, 0.125])


@MANY
@given(loads)
def test_gini_is_half_the_mean_difference_over_the_mean(load: np.ndarray) -> None:
    expected = np.abs(load[:, None] - load[None]).mean() / (2 * load.mean())
    assert gini(load) == pytest.approx(expected, abs=1e-9)


def test_even_load_violates_nothing_and_one_expert_everything() -> None:
    for num in (2, 7):
        one = np.eye(num)[0]
        assert gini(np.ones(num)) == max_violation(np.ones(num)) == 0
        assert gini(one) == pytest.approx((num - 1) / num)
        assert max_violation(one) == num - 1
    assert max_violation(np.zeros(3)) == gini(np.zeros(3)) == 0


@MANY
@given(loads)
def test_neither_minds_the_scale_nor_the_order(load: np.ndarray) -> None:
    for measure in (gini, max_violation):
        assert measure(load[::-1] * 3) == pytest.approx(float(measure(load)), abs=1e-9)


def test_a_layer_says_its_load_over_all_picks() -> None:
    made = tally(world(), [lambda w, *_: np.tile(SHARE, (len(w), 1))], top_k=2)
    row = balance(made)["layers"][0]
    counted = made.picks_BLE.sum((0, 1))
    assert row["load"] == pytest.approx((counted / (2 * made.num_tokens)).tolist())
    assert row["entropy"] == pytest.approx(entropy(counted))
    assert row["of_most"] == pytest.approx(entropy(counted) / np.log(4))


def test_a_language_says_how_sure_the_router_is_of_its_tokens() -> None:
    sure = np.array([0.97, 0.01, 0.01, 0.01])
    made = tally(world(), [lambda w, *_: np.where((w.language == 2)[:, None], sure, SHARE)], top_k=1)
    languages = balance(made)["languages"]
    assert languages["ru"]["entropy"] == pytest.approx([entropy(sure)])
    assert languages["en"]["entropy"] == pytest.approx([entropy(SHARE)])
    assert languages["ru"]["margin"] == pytest.approx([0.96])
    assert languages["en"]["margin"] == pytest.approx([0.25])
    assert languages["en"]["n"] == 6400
