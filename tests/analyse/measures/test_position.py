"""The curve over positions, its distance to the mean and what chance gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import chi2_contingency

from made_tallies import sees, tally, world
from polyclinic.analyse.measures.position import by_chance, distances, position

tables = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 5), st.integers(2, 5)), elements=st.integers(1, 40).map(float)
)


@settings(max_examples=50, deadline=None)
@given(tables)
def test_rows_weighted_by_tokens_give_pearsons_chi_square(table: np.ndarray) -> None:
    expected = chi2_contingency(table, correction=False).statistic
    assert (distances(table) * table.sum(1)).sum() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_chance_is_the_mean_over_shuffled_tokens() -> None:
    generator = np.random.default_rng(0)
    table = np.array([[5.0, 3, 1], [2, 9, 4], [1, 1, 7]])
    rows = np.repeat(np.arange(3), table.sum(1).astype(int))
    columns = np.concatenate([np.repeat(np.arange(3), row.astype(int)) for row in table])
    drawn = np.zeros((4000, 3))
    for shuffle in drawn:
        counts = np.zeros((3, 3))
        np.add.at(counts, (rows, generator.permutation(columns)), 1)
        shuffle[:] = distances(counts)
    assert by_chance(table) == pytest.approx(drawn.mean(0), rel=0.06)


def test_a_router_that_minds_the_place_stands_out_there_alone() -> None:
    late = tally(world(), [lambda w, *_: sees((w.place >= 0.9).astype(int), 4, 1, 0.5)] * 1)
    row = position(late)["layers"][0]
    assert np.argmax(row["distance"]) == 9
    assert row["distance"][9] > 50 * row["by_chance"][9]
    assert row["n"] == [late.num_tokens // 10] * 10
    even = position(tally(world(), [lambda w, *_: sees(w.token, 4, 1)]))["layers"][0]
    assert np.mean(even["distance"]) == pytest.approx(np.mean(even["by_chance"]), rel=0.8)


def test_an_empty_decile_has_no_distance() -> None:
    table = np.array([[3.0, 1], [0, 0], [1, 3]])
    assert distances(table)[1] == by_chance(table)[1] == 0
