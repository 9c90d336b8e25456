"""Picks together, against picks that do not mind each other."""

import numpy as np
import pytest

from made_tallies import World, counted, tally, world
from polyclinic.analyse.measures.coactivation import coactivation, independent, together
from polyclinic.analyse.tally import Tally


def routed(picks_TK: np.ndarray, made: World, num_experts: int) -> Tally:
    nothing = np.zeros((len(made), 1))
    return counted(made, picks_TK[:, None], (nothing, nothing), num_experts)


def test_the_share_is_of_the_tokens_of_the_first_expert() -> None:
    made = world(("en",), buckets=1, tokens=6)
    picks = np.array([[0, 1], [0, 1], [0, 2], [0, 3], [1, 2], [3, 1]])
    share = coactivation(routed(picks, made, 4).co_LEE[0].astype(float))
    assert share[0].tolist() == [0, 0.5, 0.25, 0.25]
    assert share[1].tolist() == [0.5, 0, 0.25, 0.25]
    assert share[2].tolist() == [0.5, 0.5, 0, 0]


def test_rows_of_both_sum_to_the_other_picks() -> None:
    generator = np.random.default_rng(0)
    made = world()
    picks = np.argsort(generator.random((len(made), 6)) + np.arange(6) / 6, axis=1)[:, :3]
    counts = routed(picks, made, 6).co_LEE[0].astype(float)
    assert coactivation(counts).sum(1) == pytest.approx(np.full(6, 2))
    assert independent(counts, 3).sum(1) == pytest.approx(np.full(6, 2))


def test_picks_that_do_not_mind_each_other_are_near_independence() -> None:
    made = tally(world(), [lambda w, *_: np.full((len(w), 6), 1 / 6)], num_experts=6, top_k=2)
    assert together(made)["layers"][0]["distance"] < 0.03


def test_planted_partners_lead_the_pairs_and_the_distance() -> None:
    made = world()
    pair = np.random.default_rng(1).integers(3, size=len(made))
    row = together(routed(np.stack([2 * pair, 2 * pair + 1], 1), made, 6))["layers"][0]
    assert {(p["one"], p["other"]) for p in row["pairs"]} == {(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)}
    assert row["pairs"][0]["share"] == 1
    assert row["pairs"][0]["lift"] == pytest.approx(5, rel=0.05)
    assert row["distance"] == pytest.approx(0.8, abs=0.02)


def test_one_pick_has_no_partner() -> None:
    row = together(tally(world(), [lambda w, *_: np.full((len(w), 4), 0.25)]))["layers"][0]
    assert row["pairs"] == []
    assert row["distance"] is None


def test_a_rare_pair_does_not_lead_a_common_one() -> None:
    made = world(("en",), buckets=1, tokens=1000)
    common = np.array([[0, 1]] * 600 + [[0, 2]] * 195 + [[1, 2]] * 195)
    row = together(routed(np.concatenate([common, [[3, 4]] * 10]), made, 5))["layers"][0]
    first, *others = row["pairs"]
    assert {first["one"], first["other"]} == {0, 1}
    assert max(others, key=lambda pair: pair["lift"])["one"] in (3, 4)
