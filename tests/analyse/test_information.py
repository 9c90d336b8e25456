"""Information between expert and language: known tables, known values, and an honest null."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import mutual_info_score

from polyclinic.analyse.information import by_language, entropy, layer_information, mutual_information

MANY = settings(max_examples=50, deadline=None)
tables = arrays.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 30)).filter(
    lambda table: table.sum() > 0
)
LANGUAGES = ("ar", "en", "th", "zh")


@MANY
@given(tables)
def test_it_is_the_mutual_information_of_a_known_implementation(table: np.ndarray) -> None:
    pairs = [(r, c) for (r, c), n in np.ndenumerate(table) for _ in range(n)]
    expected = mutual_info_score(*zip(*pairs, strict=True))
    assert mutual_information(table.astype(float)) == pytest.approx(expected, abs=1e-9)


@MANY
@given(tables)
def test_it_is_bounded_by_both_entropies_and_symmetric(table: np.ndarray) -> None:
    value = mutual_information(table.astype(float))
    bound = min(entropy(table.sum(0).astype(float)), entropy(table.sum(1).astype(float)))
    assert -1e-9 <= value <= bound + 1e-9
    assert value == pytest.approx(mutual_information(table.T.astype(float)), abs=1e-9)


@MANY
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_independent_counts_hold_no_information(rows: list[int], columns: list[int]) -> None:
    assert mutual_information(np.outer(rows, columns).astype(float)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_one_expert_for_each_language_holds_all_there_is(n: int) -> None:
    assert mutual_information(5.0 * np.eye(n)) == pytest.approx(math.log(n))
    assert entropy(np.full(n, 3.0)) == pytest.approx(math.log(n))


def drawn(bias: float, documents: int = 15, tokens: int = 60, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Draw documents whose languages prefer an expert each with `bias`, on top of a whim of each document."""
    generator = np.random.default_rng(seed)
    languages = [code for code in LANGUAGES for _ in range(documents)]
    counts = []
    for code in languages:
        whim = generator.dirichlet(np.full(6, 2.0))
        shares = (1 - bias) * whim + bias * np.eye(6)[LANGUAGES.index(code)]
        counts.append(generator.multinomial(tokens, shares))
    return np.array(counts), languages


def test_documents_that_only_know_their_language_give_all_and_a_small_p() -> None:
    counts, languages = drawn(bias=1.0)
    info = layer_information(3, counts, languages, shuffles=99, seed=0)
    assert info.layer == 3
    assert info.estimate == pytest.approx(math.log(4)) == pytest.approx(info.expert_entropy)
    assert info.p_value == 1 / 100
    assert info.corrected == pytest.approx(info.estimate - info.null)


def test_a_planted_preference_is_found_and_none_is_not() -> None:
    planted = [layer_information(0, *drawn(0.4, seed=s), shuffles=99, seed=s) for s in range(10)]
    none = [layer_information(0, *drawn(0.0, seed=s), shuffles=99, seed=s) for s in range(40)]
    assert max(i.p_value for i in planted) <= 0.02
    # p is uniform without a signal: 40 draws exceed 0.05 two times on average, 8 times once in 700.
    assert sum(i.p_value <= 0.05 for i in none) < 8
    assert np.mean([i.p_value for i in none]) == pytest.approx(0.5, abs=0.15)


def test_the_correction_takes_off_what_counting_alone_makes() -> None:
    """The whims of documents make the plain estimate large; shuffling tokens instead would miss that."""
    infos = [layer_information(0, *drawn(0.0, seed=s), shuffles=50, seed=s) for s in range(40)]
    by_tokens = (4 - 1) * (6 - 1) / (2 * 4 * 15 * 60)  # (Miller 1955) bias if tokens were independent
    assert np.mean([i.estimate for i in infos]) > 4 * by_tokens
    assert np.mean([i.corrected for i in infos]) == pytest.approx(0, abs=by_tokens)


def test_one_document_a_language_proves_nothing() -> None:
    """Every shuffle of whole documents is then the same table with its rows in another order."""
    info = layer_information(0, 9 * np.eye(4, dtype=np.int64), list(LANGUAGES), shuffles=50, seed=0)
    assert info.estimate == pytest.approx(math.log(4))
    assert info.corrected == pytest.approx(0, abs=1e-12)
    assert info.p_value > 0.4


def test_the_null_depends_on_its_seed_alone() -> None:
    counts, languages = drawn(0.1)
    one, again, other = (layer_information(0, counts, languages, 20, seed) for seed in (1, 1, 2))
    assert one == again
    assert (one.estimate, one.null) != (other.estimate, other.null)
    assert one.estimate == other.estimate


@MANY
@given(arrays.arrays(np.int64, (7, 3), elements=st.integers(0, 9)), st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_counts_of_documents_add_up_by_language(counts: np.ndarray, index: list[int]) -> None:
    table = by_language(counts, np.array(index), 4)
    for language in range(4):
        own = [row for row, i in zip(counts, index, strict=True) if i == language]
        assert np.array_equal(table[language], np.sum(own, axis=0) if own else np.zeros(3))
