"""Shares of families and the own expert, unforced."""

from typing import Any

import numpy as np
import pytest

from made_tallies import World, tally, world
from polyclinic.analyse.measures.family import family, family_shares

FAMILIES: dict[str, Any] = {
    "families": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
    "expert_of": {"en": 0, "fr": 0, "ru": 1},
}


def to_own(made: World, *_: object) -> np.ndarray:
    """Send en, fr and ru to experts 0, 2, 1 with 0.7, zh anywhere."""
    out = np.full((len(made), 4), 0.1)
    out[np.arange(len(made)), np.array([0, 2, 1, 3])[made.language]] = 0.7
    return out


def test_a_family_is_the_mean_of_its_languages_weighted_by_tokens() -> None:
    made = tally(world(), [to_own])
    shares, tokens = family_shares(made, FAMILIES["expert_of"], 3)
    assert tokens.tolist() == [12800, 6400, 0]
    assert shares[0, 0] == pytest.approx([0.4, 0.1, 0.4, 0.1], abs=0.02)
    assert shares[1, 0] == pytest.approx([0.1, 0.7, 0.1, 0.1], abs=0.02)


def test_the_own_expert_counts_where_it_is_the_familys() -> None:
    facts = family(tally(world(), [to_own, to_own]), FAMILIES, 0)
    own = facts["own_expert"]
    assert set(own) == {"en", "fr", "ru"}
    assert own["en"]["mean"]["share"] == pytest.approx(0.7, abs=0.02)
    assert own["fr"]["mean"]["share"] == pytest.approx(0.1, abs=0.02)
    assert facts["own_expert_of_all"]["mean"]["share"] == pytest.approx(0.5, abs=0.02)
    assert facts["own_expert_of_all"]["n"] == 3 * 6400
    assert [row["family"] for row in facts["shares"]] == ["a", "b"]


def test_blind_picks_reach_the_line_of_chance() -> None:
    facts = family(tally(world(), [lambda w, *_: np.full((len(w), 4), 0.25)], top_k=2), FAMILIES, 0)
    assert facts["chance"] == 0.5
    low, high = facts["own_expert_of_all"]["layers"][0]["interval"]
    assert low < 0.5 < high
    assert high - low < 0.03


def test_the_interval_is_as_wide_as_documents_differ_and_no_narrower_for_translations() -> None:
    def by_text(made: World, *_: object) -> np.ndarray:
        own = np.random.default_rng(3).uniform(0.2, 0.9, 16)[made.number]  # all languages of a text alike
        rest = (1 - own) / 3
        out = np.repeat(rest[:, None], 4, 1)
        out[np.arange(len(made)), np.array([0, 0, 1, 3])[made.language]] = own
        return out

    facts = family(tally(world(), [by_text]), FAMILIES, 0)
    own = np.random.default_rng(3).uniform(0.2, 0.9, 16)
    expected = 2 * 1.96 * own.std() / 4
    low, high = facts["own_expert_of_all"]["layers"][0]["interval"]
    assert high - low == pytest.approx(expected, rel=0.2)


def test_one_bucket_has_no_interval() -> None:
    facts = family(tally(world(buckets=1), [to_own]), FAMILIES, 0)
    assert facts["own_expert"]["en"]["layers"][0]["interval"] is None
