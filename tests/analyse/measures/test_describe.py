"""The whole object: plain values, each with its n, the same for the same seed, even of thin tallies."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from made_tallies import World, sees, tally, world
from polyclinic.analyse.measures.describe import describe
from polyclinic.analyse.tally import Tally

FAMILIES: dict[str, Any] = {"families": [{"name": "a"}, {"name": "b"}], "expert_of": {"en": 0, "fr": 0, "ru": 1}}


def by_language(made: World, *_: object) -> np.ndarray:
    return sees(made.language, 4, 1, 0.5)


def made(**sizes: Any) -> Tally:
    return tally(world(**sizes), [by_language, by_language], top_k=2)


def test_it_is_json_without_nan_and_the_same_again() -> None:
    one, again = (describe(made(buckets=4, ids=8), FAMILIES, 20, 7) for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(again, allow_nan=False)
    assert one["information"]["all_picks"]["I(E;L|T)"]["n"] == 2 * one["information"]["first_pick"]["I(E;L|T)"]["n"]


@pytest.mark.parametrize(
    "sizes",
    [
        {"languages": ("en",)},
        {"buckets": 1, "tokens": 3},
        {"languages": ("en", "fr"), "shared": 0, "buckets": 1, "tokens": 50},
    ],
)
def test_thin_tallies_leave_out_what_they_cannot_say(sizes: dict[str, Any]) -> None:
    facts = describe(made(**sizes), None, 5, 0)
    json.dumps(facts, allow_nan=False)
    assert facts["family"] is None
    assert facts["information"]["first_pick"]["I(E;L|T)"] is None


def test_a_language_without_a_token_and_picks_not_counted_by_id_are_no_fault() -> None:
    tallied = made(buckets=4, ids=8)
    counts = replace(tallied.shared.counts, picks_N=np.zeros(0, dtype=np.int64))
    tallied = replace(tallied, shared=replace(tallied.shared, counts=counts))
    wider = replace(
        tallied,
        languages=(*tallied.languages, "de"),
        next_GLEE=np.concatenate([tallied.next_GLEE, 0 * tallied.next_GLEE[:1]]),
        margin_GL=np.concatenate([tallied.margin_GL, 0 * tallied.margin_GL[:1]]),
        entropy_GL=np.concatenate([tallied.entropy_GL, 0 * tallied.entropy_GL[:1]]),
    )
    facts = describe(wider, {**FAMILIES, "expert_of": {**FAMILIES["expert_of"], "de": 0}}, 5, 0)
    json.dumps(facts, allow_nan=False)
    assert facts["information"]["all_picks"]["I(E;T)"] is None
    assert facts["tokens_of"]["de"] == 0
    assert "de" not in facts["divergence"]["languages"]
    assert "de" not in facts["family"]["own_expert"]


def test_shares_of_a_language_sum_to_its_picks() -> None:
    for row in describe(made(buckets=4, ids=8), FAMILIES, 5, 0)["shares"]:
        assert np.array(row["layers"]).sum(1) == pytest.approx([2, 2])
        assert row["n"] == 1600
