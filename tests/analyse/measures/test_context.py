"""The context score: routers that see the token before, and routers that do not."""

import numpy as np
import pytest

from made_tallies import World, sees, tally, world
from polyclinic.analyse.measures.context import context


def made(shared: int | None = None) -> World:
    return world(ids=8, shared=shared)


def test_a_router_that_sees_the_token_before_scores_one() -> None:
    found = context(tally(made(), [lambda w, *_: sees(w.token * 100 + w.previous, 4, 1)]), 100, 0)
    assert found is not None
    assert found.score_L[0] == pytest.approx(1, abs=0.02)
    assert found.p_value_L[0] == pytest.approx(1 / 101)


@pytest.mark.parametrize("sight", ["token", "language", "bucket"])
@pytest.mark.parametrize("shared", [None, 4])
def test_one_that_sees_something_else_scores_nothing(sight: str, shared: int | None) -> None:
    found = context(tally(made(shared), [lambda w, *_: sees(getattr(w, sight), 4, 1, 0.8)]), 100, 0)
    assert found is not None
    assert found.score_L[0] == pytest.approx(0, abs=0.02)


def test_the_estimate_is_what_the_token_before_takes_off_the_entropy() -> None:
    tallied = tally(world(("en",), buckets=64, ids=8), [lambda w, *_: sees(w.token + 3 * w.previous, 4, 1, 0.5)])
    found = context(tallied, 5, 0)
    assert found is not None
    shared, counts = tallied.shared, tallied.shared.pair_counts
    joint = np.zeros((8, 8, 4))
    row = counts.row_N
    np.add.at(joint, (shared.pair_token_Q[row], shared.pair_previous_Q[row], counts.expert_N), counts.first_N)

    def conditional(table: np.ndarray) -> float:
        share = table / table.sum()
        given = share / share.sum(-1, keepdims=True)
        return float(-(share * np.log(np.where(given > 0, given, 1))).sum())

    assert found.most_L[0] == pytest.approx(conditional(joint.sum(1)), abs=1e-5)
    assert found.estimate_L[0] == pytest.approx(conditional(joint.sum(1)) - conditional(joint), abs=1e-5)


def test_text_without_a_pair_often_enough_has_no_score() -> None:
    assert context(tally(world(buckets=1, tokens=3), [lambda w, *_: sees(w.token, 4, 1)]), 5, 0) is None
