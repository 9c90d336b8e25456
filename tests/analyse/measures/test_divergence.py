"""Divergence between languages, its tree and the family tree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import jensenshannon

from made_tallies import sees, tally, world
from polyclinic.analyse.measures.divergence import cophenetic, divergence, divergences, mantel, tree_distances

MANY = settings(max_examples=50, deadline=None)
tables = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.integers(0, 40).map(float)
)
FAMILIES = ("es", "fr", "it", "ru", "uk", "bg", "zh", "ar", "he")


@MANY
@given(tables.filter(lambda table: (table.sum(1) > 0).all()))
def test_it_is_the_square_of_a_known_implementation(table: np.ndarray) -> None:
    bits, normalised = divergences(table)
    for i, one in enumerate(table):
        for j, other in enumerate(table):
            expected = 0.0 if i == j else np.nan_to_num(jensenshannon(one, other, 2)) ** 2
            assert bits[i, j] == pytest.approx(expected, abs=1e-7)
    assert ((normalised >= 0) & (normalised <= 1 + 1e-9)).all()


def test_apart_is_one_bit_and_alike_is_none() -> None:
    bits, normalised = divergences(np.array([[4.0, 0, 0], [0, 0, 9], [8, 0, 0]]))
    assert bits[0, 1] == normalised[0, 1] == pytest.approx(1)
    assert bits[0, 2] == normalised[0, 2] == 0


def test_less_is_left_of_the_same_gap_where_both_spread() -> None:
    bits, normalised = divergences(np.array([[1.0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]))
    assert 0 < normalised[0, 1] < bits[0, 1]


def test_distances_in_the_tree_are_one_for_strangers_and_small_for_sisters() -> None:
    es_pt, es_zh, es_ru = (tree_distances(("es", other))[0, 1] for other in ("pt", "zh", "ru"))
    assert es_zh == 1
    assert 0 < es_pt < es_ru < 1
    assert (np.diag(tree_distances(FAMILIES)) == 0).all()
    assert (tree_distances(FAMILIES) == tree_distances(FAMILIES).T).all()


def test_heights_are_means_over_the_two_branches() -> None:
    distances = np.array([[0, 1, 4.0], [1, 0, 6], [4, 6, 0]])
    assert cophenetic(distances)[0, 1] == 1
    assert cophenetic(distances)[0, 2] == cophenetic(distances)[1, 2] == 5


def test_the_family_tree_is_found_where_routing_follows_it_and_only_there() -> None:
    family = np.array([0, 0, 0, 1, 1, 1, 2, 3, 3])
    made = tally(
        world(FAMILIES, buckets=4, tokens=200),
        [lambda w, *_: sees(family[w.language], 6, 1, 0.7), lambda w, *_: sees(w.language, 9, 1, 0.7)[:, :6] + 0.05],
        num_experts=6,
    )
    followed, ignored = divergence(made, 200, 0)["layers"]
    assert followed["tree_correlation"] > 0.8
    assert followed["p_value"] < 0.02
    assert ignored["tree_correlation"] < 0.5
    assert followed["mean"] > 0.05


def test_the_p_value_is_even_where_nothing_is_related() -> None:
    generator = np.random.default_rng(0)

    def made() -> np.ndarray:
        upper = np.triu(generator.random((7, 7)), 1)
        return upper + upper.T

    p_values = np.array([mantel(made(), made(), 60, seed).p_value for seed in range(40)])  # type: ignore[union-attr]
    assert 0.35 < p_values.mean() < 0.65
    assert (p_values <= 0.1).mean() < 0.3
    same = made()
    assert mantel(same, same, 99, 0) == pytest.approx((1, 0.01))


def test_two_languages_or_equal_distances_correlate_with_nothing() -> None:
    assert mantel(np.zeros((2, 2)), np.ones((2, 2)), 9, 0) is None
    assert mantel(1 - np.eye(4), np.triu(np.ones((4, 4)), 2) + np.triu(np.ones((4, 4)), 2).T, 9, 0) is None


def test_english_is_named_where_there_is_some_and_unknown_codes_do_no_harm() -> None:
    made = tally(world(("en", "fr", "x-none"), buckets=4, tokens=50), [lambda w, *_: sees(w.language, 4, 1)])
    row = divergence(made, 9, 0)["layers"][0]
    assert row["to_english"] == pytest.approx([0, 1, 1])
    assert row["tree_correlation"] is None
    assert len(row["linkage"]) == 2
    made = tally(world(("fr", "ru"), buckets=4, tokens=50), [lambda w, *_: sees(w.language, 4, 1)])
    assert divergence(made, 9, 0)["layers"][0]["to_english"] is None
