"""Confidence against being right: models whose calibration is known."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_items import item
from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.calibration import Predictions, binned, calibration, error


def sure(number: int, confidence: float, right: bool) -> Item:
    """Return an item with `confidence` in its first option and the rest shared out, scores moved by a constant."""
    scores = tuple(np.log([confidence, *[(1 - confidence) / 3] * 3]) - 7.0)
    return item(number, gold=(0 if right else 2,), picked=(0,), scores=scores)


def model(n: int, truth: Any, seed: int = 0) -> list[Item]:
    """Return items of one that says 0.3 to 1 and is right as often as `truth` of that."""
    draw = np.random.default_rng(seed)
    said = draw.uniform(0.3, 1, n)
    return [sure(k, float(c), bool(draw.random() < truth(c))) for k, c in enumerate(said)]


def found(items: list[Item]) -> dict[str, Any]:
    out = calibration(items)
    assert out is not None
    return out


def test_a_calibrated_model_has_no_error_beyond_that_of_few_items() -> None:
    out = found(model(20_000, lambda c: c))
    for kind in ("width", "mass"):
        assert out[f"ece_{kind}"] < 0.012
        assert out[f"ece_{kind}"] == pytest.approx(out[f"floor_{kind}"], abs=0.006)
    few = found(model(60, lambda c: c))
    assert few["floor_mass"] > 0.1


def test_an_overconfident_model_has_the_error_by_which_it_is_so() -> None:
    out = found(model(20_000, lambda c: c - 0.2))
    for kind in ("width", "mass"):
        assert out[f"ece_{kind}"] == pytest.approx(0.2, abs=0.012)
        assert out[f"floor_{kind}"] < 0.02
    assert out["confidence"] - out["accuracy"] == pytest.approx(0.2, abs=0.012)


def test_the_brier_score_is_the_squared_error_over_all_options() -> None:
    out = found([sure(0, 0.7, True), sure(1, 0.4, False)])
    first = 0.3**2 + 3 * 0.1**2
    second = 0.4**2 + 0.8**2 + 2 * 0.2**2
    assert out["brier"] == pytest.approx((first + second) / 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80))
def test_the_error_is_that_of_a_plain_loop(values: list[tuple[float, bool]]) -> None:
    said, right = (np.array(column, dtype=np.float64) for column in zip(*values, strict=True))
    predictions = Predictions(said, right, right)
    for bins in (binned(said, "width"), binned(said, "mass")):
        expected = 0.0
        for number in range(15):
            inside = bins == number
            if inside.any():
                expected += inside.mean() * abs(right[inside].mean() - said[inside].mean())
        assert error(predictions, bins) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_bins_have_equal_width_or_equal_numbers(said: list[float]) -> None:
    values = np.array(said)
    wide, full = binned(values, "width"), binned(values, "mass")
    assert ((wide / 15 <= values + 1e-9) & (values <= (wide + 1) / 15 + 1e-9)).all()
    counts = np.bincount(full, minlength=15)
    assert counts.max() - counts.min() <= 1
    order = np.argsort(values, kind="stable")
    assert (np.diff(full[order]) >= 0).all()


def test_the_table_adds_up() -> None:
    out = found(model(200, lambda c: c))
    for kind in ("width", "mass"):
        rows = out[f"bins_{kind}"]
        assert sum(r["n"] for r in rows) == 200
        assert sum(r["n"] * r["accuracy"] for r in rows) == pytest.approx(200 * out["accuracy"])
        assert all(r["low"] <= r["confidence"] <= r["high"] for r in rows)


def test_sets_of_options_are_choices_too() -> None:
    scores = np.log([0.1, 0.1, 0.8])  # A; B; A, B
    out = found([item(0, options=2, gold=(1, 0), picked=(0, 1), scores=tuple(scores))])
    assert (out["accuracy"], out["confidence"]) == (1.0, pytest.approx(0.8))
    assert out["brier"] == pytest.approx(0.2**2 + 2 * 0.1**2)


def test_written_answers_have_no_confidence() -> None:
    assert calibration([item(0), item(1)]) is None
    assert found([item(0), sure(1, 0.5, True)])["without_scores"] == 1


@pytest.mark.parametrize("scores", [(0.0, float("nan"), 0.0, 0.0), (float("-inf"),) * 4, (0.0,) * 5])
def test_scores_that_mean_nothing_are_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="item 3 of e_en"):
        calibration([item(3, scores=scores)])


def test_a_choice_that_cannot_be_is_no_error() -> None:
    assert found([item(0, scores=(0.0, float("-inf"), float("-inf"), float("-inf")))])["brier"] == 0
