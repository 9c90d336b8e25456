"""How much of the last checkpoint's routing is there already."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.analyse.measures.saturation import overlap, same_first, saturation


def picks(seed: int, tokens: int = 50, experts: int = 6) -> np.ndarray:
    return np.argsort(np.random.default_rng(seed).random((tokens, 3, experts)), axis=2)[:, :, :2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_overlap_is_the_mean_common_share_of_sets(one: int, other: int) -> None:
    here, last = picks(one), picks(other)
    for layer in range(3):
        expected = np.mean([len(set(a) & set(b)) / 2 for a, b in zip(here[:, layer], last[:, layer], strict=True)])
        assert overlap(here, last)[layer] == pytest.approx(expected)


def test_order_matters_to_the_first_pick_alone() -> None:
    last = picks(0)
    assert overlap(last[..., ::-1], last).tolist() == [1, 1, 1]
    assert same_first(last[..., ::-1], last).tolist() == [0, 0, 0]
    assert same_first(last, last).tolist() == [1, 1, 1]


def test_blind_picks_reach_what_is_said_of_chance() -> None:
    found = saturation({"a": picks(1, 4000), "b": picks(2, 4000)}, "b", 6)
    assert found["checkpoints"]["a"]["overlap"] == pytest.approx([found["by_chance"]["overlap"]] * 3, abs=0.02)
    assert found["checkpoints"]["a"]["same_first"] == pytest.approx([found["by_chance"]["same_first"]] * 3, abs=0.02)
    assert found["checkpoints"]["b"]["overlap"] == [1, 1, 1]
    assert found["n"] == 4000


def test_other_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="same tokens"):
        saturation({"a": picks(1, 40), "b": picks(2)}, "b", 6)
    with pytest.raises(ValueError, match="same tokens"):
        saturation({"b": picks(2, 0)}, "b", 6)
