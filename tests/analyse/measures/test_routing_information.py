"""Routers whose sight is known: what the corrected measures say of them."""

import numpy as np
import pytest

from made_tallies import Router, World, sees, tally, world
from polyclinic.analyse.measures import information
from polyclinic.analyse.measures.association import Association
from polyclinic.analyse.measures.information import as_facts, depth, language_information, token_information, used_rows
from polyclinic.analyse.tally import Tally

SHUFFLES = 100


def by_id(made: World, *_: object) -> np.ndarray:
    return sees(made.token, 4, 1)


def by_language(made: World, *_: object) -> np.ndarray:
    return sees(made.language, 4, 1)


def by_nothing(made: World, *_: object) -> np.ndarray:
    return np.full((len(made), 4), 0.25)


def by_document(made: World, *_: object) -> np.ndarray:
    return np.random.default_rng(5).dirichlet([4] * 4, made.bucket.max() + 1)[made.bucket]


def by_own_words(made: World, *_: object) -> np.ndarray:
    """An id of one language goes to that language's expert, a shared id to its own: the id alone decides."""
    return sees(np.where(made.token < 4, made.token, (made.token - 4) // 40 % 4), 4, 1)


def half(labels: str) -> Router:
    return lambda made, *_: sees(getattr(made, labels), 4, 1, 0.5)


PAIRS = [(by_id, 1, 0), (by_language, 0, 1), (by_nothing, 0, 0), (by_document, 0, 0)]


@pytest.mark.parametrize(("router", "of_id", "of_language"), PAIRS)
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_corrected_pair_says_what_the_router_sees(
    router: Router, of_id: int, of_language: int, every: bool, seed: int
) -> None:
    made = tally(world(seed=seed), [router], seed=seed)
    found = token_information(made, every, SHUFFLES, seed)
    assert found["I(E;T|L)"].score_L[0] == pytest.approx(of_id, abs=0.02)
    assert found["I(E;L|T)"].score_L[0] == pytest.approx(of_language, abs=0.02)
    assert language_information(made, every, SHUFFLES, seed).score_L[0] == pytest.approx(of_language, abs=0.02)
    assert found["I(E;T)"].score_L[0] == pytest.approx(of_id, abs=0.02)


def test_own_words_look_like_language_until_the_id_is_known() -> None:
    made = tally(world(shared=4), [by_own_words])
    found = token_information(made, False, SHUFFLES, 0)
    assert language_information(made, False, SHUFFLES, 0).score_L[0] > 0.2
    assert found["I(E;L|T)"].score_L[0] == pytest.approx(0, abs=0.02)
    assert found["I(E;L|T)"].p_value_L[0] > 0.05
    assert found["I(E;T|L)"].score_L[0] == pytest.approx(1, abs=0.02)


def test_half_a_sight_is_measured_at_its_share_from_below() -> None:
    """Truth: I / H of the mixture of one expert with 0.5 and all evenly; the null takes a little too much."""
    share = np.array([0.625, 0.125, 0.125, 0.125])
    truth = 1 - (-(share * np.log(share)).sum()) / np.log(4)
    few, many = (tally(world(buckets=n, tokens=4000 // n), [half("language")]) for n in (8, 64))
    low, high = (language_information(made, False, SHUFFLES, 0).score_L[0] for made in (few, many))
    assert low < high < truth + 0.01
    assert high == pytest.approx(truth, abs=0.02)


def test_documents_move_whole_so_that_their_own_taste_is_no_finding() -> None:
    p_values = []
    for seed in range(20):
        router = lambda made, *_: np.random.default_rng(seed).dirichlet([4] * 4, made.bucket.max() + 1)[made.bucket]  # noqa: B023, E731
        made = tally(world(buckets=8, tokens=100, seed=seed), [router], seed=seed)
        p_values.append(language_information(made, False, 50, seed).p_value_L[0])
    assert np.mean(np.array(p_values) < 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.7


def test_two_picks_are_counted_as_one_drawn_of_them() -> None:
    made = tally(world(), [half("language")], top_k=2)
    first, every = (language_information(made, which, 20, 0) for which in (False, True))
    assert every.tokens == 2 * first.tokens == 2 * made.num_tokens
    assert 0 < every.score_L[0] < first.score_L[0]


def test_ids_too_rare_for_so_many_experts_are_left_out() -> None:
    made = tally(world(tokens=60), [by_id])
    counted = np.bincount(used_rows(made, 1).token_U * 4 + used_rows(made, 1).language_U, used_rows(made, 1).size_U)
    assert counted[counted > 0].min() >= 8
    assert 0 < counted.sum() < made.num_tokens
    assert used_rows(tally(world(buckets=1, tokens=9), [by_id]), 2).token_U.size == 0


def test_no_id_in_two_languages_leaves_the_figure_out() -> None:
    found = token_information(tally(world(shared=0), [by_id]), False, 5, 0)
    assert set(found) == {"I(E;T|L)", "I(E;T)"}


def test_the_most_frequent_ids_are_kept_where_all_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tally(world(), [by_id])
    everything = used_rows(made, 2)
    monkeypatch.setattr(information, "MIN_ROWS", 200)
    monkeypatch.setattr(information, "MAX_COUNTS", 1)
    fewer = used_rows(made, 2)
    assert 200 - 64 <= len(fewer.token_U) <= 200 < len(everything.token_U)
    totals = np.bincount(everything.token_U, everything.size_U)
    kept = np.unique(fewer.token_U)
    assert set(kept) == set(np.argsort(-totals, kind="stable")[: len(kept)])


def rising(tallied: Tally) -> Association:
    return language_information(tallied, False, 50, 0)


def test_the_slope_over_depth_is_that_of_the_routers() -> None:
    routers: list[Router] = [lambda made, layer, _: sees(made.language, 4, 1, 0.2 + 0.15 * layer) for _ in range(5)]
    measure = rising(tally(world(), routers))
    found = depth(measure)
    assert found is not None
    line = np.polynomial.Polynomial.fit(np.linspace(0, 1, 5), measure.score_L, 1).convert().coef
    assert found["slope"] == pytest.approx(line[1])
    assert 0 < found["slope_interval"][0] < found["slope"] < found["slope_interval"][1]
    assert found["late_over_early"] == pytest.approx(measure.score_L[4] / measure.score_L[0])
    assert found["late_over_early_interval"][0] > 1
    flat = depth(rising(tally(world(), [half("language")] * 4)))
    assert flat is not None
    assert flat["slope_interval"][0] < 0 < flat["slope_interval"][1]


def test_one_layer_has_no_depth_and_no_early_score_no_ratio() -> None:
    assert depth(rising(tally(world(), [by_language]))) is None
    measure = rising(tally(world(), [by_nothing, by_nothing, by_language]))
    measure.estimate_L[0] = 0.0  # below its null
    found = depth(measure)
    assert found is not None
    assert found["late_over_early"] is None


def test_facts_name_layers_of_the_model_and_what_they_rest_on() -> None:
    made = tally(world(), [by_language, by_nothing], layers=[3, 7])
    facts = as_facts(language_information(made, False, 20, 0), made.layers)
    assert [row["layer"] for row in facts["layers"]] == [3, 7]
    assert (facts["n"], facts["buckets"]) == (made.num_tokens, 16)
    assert facts["layers"][0]["score"] == pytest.approx(1)
    assert facts["layers"][0]["p_value"] == pytest.approx(1 / 21)
