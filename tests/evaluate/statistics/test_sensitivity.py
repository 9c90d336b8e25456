"""The prompt-sensitivity index: its definition, its zeros, and that it grows with what is changed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.errors import DataError
from polyclinic.evaluate.statistics.sensitivity import Asked, psi, sensitivity

matrices = st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10**6))


def shares(weights: np.ndarray) -> np.ndarray:
    return np.log(weights / weights.sum(axis=-1, keepdims=True))


def random(ways: int, choices: int, seed: int) -> np.ndarray:
    return shares(np.random.default_rng(seed).gamma(1.0, size=(ways, choices)))


def asked(number: int, log_p: np.ndarray, gold: int = 0, language: str = "en", kind: str = "") -> Asked:
    return Asked(str(number), language, f"g {number}", gold, log_p, kind)


@settings(max_examples=50, deadline=None)
@given(matrices)
def test_the_index_is_the_sum_of_its_definition(shape: tuple[int, int, int]) -> None:
    log_p = random(*shape)
    ways = len(log_p)
    total = 0.0
    for i in range(ways):
        for j in range(ways):
            if i != j:
                answer = int(np.argmax(log_p[j]))
                total += abs(log_p[i][answer] - log_p[j][answer])
    assert psi(log_p) == pytest.approx(total / (ways * (ways - 1)))


def test_one_answer_with_unlike_confidence_is_not_zero() -> None:
    """Confidences 0.9, 0.6 and 0.55 in the same answer: 0.33; with the indices exchanged it would be 0."""
    log_p = np.log([[p, 1 - p] for p in (0.9, 0.6, 0.55)])
    assert psi(log_p) == pytest.approx(0.33, abs=0.005)
    assert psi(log_p) == pytest.approx((np.log(0.9 / 0.6) + np.log(0.9 / 0.55) + np.log(0.6 / 0.55)) / 3)


@settings(max_examples=30, deadline=None)
@given(matrices)
def test_prompts_that_change_nothing_have_index_zero(shape: tuple[int, int, int]) -> None:
    assert psi(np.repeat(random(1, *shape[1:]), shape[0], axis=0)) == 0


@settings(max_examples=30, deadline=None)
@given(matrices)
def test_the_order_of_prompts_and_choices_does_not_matter(shape: tuple[int, int, int]) -> None:
    log_p = random(*shape)
    assert psi(log_p[::-1]) == pytest.approx(psi(log_p))
    assert psi(log_p[:, ::-1]) == pytest.approx(psi(log_p))


def test_the_index_grows_with_what_is_changed() -> None:
    """A model whose logits move by noise in proportion to the rate of typing errors."""
    draw = np.random.default_rng(0)
    plain, noise = draw.normal(0, 2, (300, 1, 4)), draw.normal(0, 1, (300, 4, 4))
    noise[:, 0] = 0
    found = []
    for rate in (0.0, 0.2, 0.5, 1.0, 2.0):
        logits = plain + rate * noise
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        (row,) = sensitivity([asked(n, log_p[n]) for n in range(300)])
        found.append((row["index"], row["flipped"], row["unstable"]))
    for column in zip(*found, strict=True):
        assert column[0] == 0
        assert all(low < high for low, high in itertools.pairwise(column))


def test_flips_and_accuracy_are_counted_against_the_plain_wording() -> None:
    a, b = np.log([0.8, 0.2]), np.log([0.2, 0.8])
    rows = sensitivity([asked(0, np.array([a, a, b])), asked(1, np.array([a, a, a])), asked(2, np.array([b, b, a]))])
    assert len(rows) == 1
    row = rows[0]
    assert (row["n"], row["ways"]) == (3, 3)
    assert row["flipped"] == pytest.approx(2 / 6)
    assert row["unstable"] == pytest.approx(2 / 3)
    assert (row["accuracy"], row["lowest"], row["highest"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    (other,) = sensitivity([asked(0, np.array([a, b])), asked(1, np.array([a, b]))])
    assert (other["accuracy"], other["lowest"], other["highest"]) == (1.0, 0.0, 1.0)


def test_rows_are_per_kind_and_language_and_hold_the_mean_in_their_interval() -> None:
    questions = [
        asked(n, random(3, 4, n), language=code, kind=kind)
        for n in range(40)
        for code in ("en", "sw")
        for kind in ("template", "typos")
    ]
    rows = sensitivity(questions)
    assert [(r["kind"], r["language"]) for r in rows] == [
        (kind, code) for kind in ("template", "typos") for code in ("en", "sw")
    ]
    for r in rows:
        mean = np.mean([psi(q.log_p) for q in questions if (q.kind, q.language) == (r["kind"], r["language"])])
        assert r["index"] == pytest.approx(mean)
        assert r["low"] < r["index"] < r["high"]


@pytest.mark.parametrize(
    ("log_p", "what"), [(np.zeros((1, 3)), "less than two ways"), (np.array([[0.0, -np.inf]] * 2), "not finite")]
)
def test_what_has_no_index_is_refused(log_p: np.ndarray, what: str) -> None:
    with pytest.raises(DataError, match=what):
        psi(log_p)


def test_questions_of_one_row_are_put_in_as_many_ways() -> None:
    with pytest.raises(DataError, match="different numbers of ways"):
        sensitivity([asked(0, random(2, 3, 0)), asked(1, random(3, 3, 0))])
