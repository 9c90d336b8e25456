"""The ids that are most an expert's own."""

import numpy as np
import pytest

from made_tallies import sees, tally, world
from polyclinic.analyse.measures.specific import log_odds, specific


def test_planted_ids_lead_and_name_the_language_that_uses_them() -> None:
    def route(made: object, *_: object) -> np.ndarray:
        token = made.token  # type: ignore[attr-defined]
        return sees(np.where(token == 50, 2, 0), 4, 1) * 0.9 + 0.025

    made = tally(world(shared=10), [route])
    experts = specific(made)["layers"][0]["experts"]
    chosen = max(range(4), key=lambda e: experts[e][0]["log_odds"] if experts[e] else 0)
    top = experts[chosen][0]
    assert top["id"] == 50
    assert top["language"] == "fr"
    assert top["count"] / top["n"] == pytest.approx(0.925, abs=0.05)
    load = made.first_BLE.sum(0)[0, chosen] / made.num_tokens
    assert top["lift"] == pytest.approx(top["count"] / top["n"] / load)
    assert all(row["n"] >= 10 for expert in experts for row in expert)


def test_without_evidence_the_odds_are_those_of_any_token() -> None:
    load = np.array([0.1, 0.5, 0.9])
    assert log_odds(np.zeros(3, int), np.zeros(3, int), load) == pytest.approx([0, 0, 0], abs=1e-12)
    much = log_odds(np.array([900_000]), np.array([1_000_000]), np.array([0.5]))
    assert much == pytest.approx([np.log(9)], abs=1e-3)


def test_the_same_share_says_more_the_more_often_it_is_seen() -> None:
    few, many = log_odds(np.array([5, 500]), np.array([5, 500]), np.array([0.2, 0.2]))
    assert 0 < few < many


def test_an_expert_that_takes_all_or_nothing_has_no_ids_of_its_own() -> None:
    made = tally(world(), [lambda w, *_: np.tile([1.0, 0, 0, 0], (len(w), 1))])
    assert specific(made)["layers"][0]["experts"] == [[], [], [], []]


def test_an_id_seen_too_seldom_is_left_out() -> None:
    made = tally(world(buckets=1, tokens=100), [lambda w, *_: sees(w.token, 4, 1)])
    listed = {row["id"] for expert in specific(made)["layers"][0]["experts"] for row in expert}
    totals = made.top_tokens.total_LES[0]
    often = set(made.top_tokens.id_LES[0][totals >= 10].tolist())
    assert listed <= often
    assert 0 < len(listed) < len(np.unique(made.top_tokens.id_LES))
