"""Overlap of unit sets: equal to that of Python's sets, and 0 separation where language makes no difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import entropy

from polyclinic.analyse.depth import overlap

MANY = settings(max_examples=50, deadline=None)
means = arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(5, 40)), elements=st.floats(0, 10))


@MANY
@given(means, st.sampled_from([0.1, 0.3, 1.0]))
def test_a_set_holds_its_share_of_units_and_none_outside_is_higher(values: np.ndarray, top: float) -> None:
    sets = overlap.top_sets(values, top)
    assert (sets.sum(-1) == max(1, round(top * values.shape[-1]))).all()
    for row, inside in zip(values, sets, strict=True):
        assert inside.all() or row[inside].min() >= row[~inside].max()


@MANY
@given(means)
def test_it_is_intersection_over_union(values: np.ndarray) -> None:
    sets = overlap.top_sets(values, 0.3)
    members = [set(np.flatnonzero(row)) for row in sets]
    expected = [[len(a & b) / len(a | b) for b in members] for a in members]
    np.testing.assert_allclose(overlap.jaccard(sets), expected)


def drawn(shift: float, buckets: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy sums of 3 languages, 2 layers, 200 units; `shift` is what a language adds to units of its own."""
    generator = np.random.default_rng(seed)
    base = generator.gamma(1.0, size=(2, 200)) + shift * generator.gamma(1.0, size=(3, 2, 200))
    tokens = generator.integers(20, 40, size=(buckets, 3))
    return (base * tokens[:, :, None, None]) * generator.gamma(2.0, 0.5, size=(buckets, 3, 2, 200)), tokens


def test_separation_is_nothing_but_noise_where_languages_do_not_differ() -> None:
    found = [overlap.separation(overlap.overlaps(overlap.halves(*drawn(0.0, seed=s), np.ones(32)))) for s in range(20)]
    assert np.mean(found) == pytest.approx(0, abs=0.02)
    apart = overlap.overlaps(overlap.halves(*drawn(0.0), np.ones(32)))
    assert overlap.within_between(apart)[0].max() < 0.9  # two halves of one language differ: without them it would lie


def test_separation_grows_with_what_languages_have_of_their_own() -> None:
    found = [
        overlap.separation(overlap.overlaps(overlap.halves(*drawn(s), np.ones(32)))).mean() for s in (0, 0.3, 1, 9)
    ]
    assert found == sorted(found)
    assert found[-1] > 0.8


def test_separation_is_one_where_no_unit_is_shared() -> None:
    sums = np.zeros((2, 2, 1, 40))
    sums[:, 0, 0, :4], sums[:, 1, 0, 20:24] = 1, 1
    found = overlap.overlaps(overlap.halves(sums, np.ones((2, 2), dtype=np.int64), np.ones(2)))
    np.testing.assert_allclose(found, np.eye(2)[None])
    assert overlap.separation(found) == pytest.approx(1)


def test_halves_are_token_means_of_even_and_odd_buckets_as_often_as_drawn() -> None:
    sums, tokens = drawn(0.5, buckets=4)
    weight = np.array([2.0, 0, 1, 3])
    found = overlap.halves(sums, tokens, weight)
    np.testing.assert_allclose(found[1, 2], (2 * sums[0, 2, 1] + sums[2, 2, 1]) / (2 * tokens[0, 2] + tokens[2, 2]))
    np.testing.assert_allclose(found[0, 3 + 1], sums[3, 1, 0] / tokens[3, 1])
    with pytest.raises(ValueError, match="half without text"):
        overlap.halves(sums, tokens, np.array([1.0, 0, 1, 0]))


@MANY
@given(arrays.arrays(np.float64, (3, 2, 5), elements=st.floats(0, 10)))
def test_specificity_is_one_minus_the_normalised_entropy_over_languages(values: np.ndarray) -> None:
    found = overlap.specificity(values)
    for (layer, unit), got in np.ndenumerate(found):
        column = values[:, layer, unit]
        expected = 1 - entropy(column) / np.log(3) if column.sum() > 0 else 0.0
        assert got == pytest.approx(expected, abs=1e-6)
