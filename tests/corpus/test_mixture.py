"""The mixture: how often each document appears and when, against the formula and by what must stay the same."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.pack.mixture import Group, Mixing, appearances, check_names, draw, epochs, fill, mixing, pace
from polyclinic.corpus_section import MixSection
from polyclinic.errors import RecipeError, UnknownLanguageError
from polyclinic.families import load_preset
from polyclinic.recipe import section_of

GROUPS = [Group("wiki", "web", "en"), Group("wiki", "web", "sw"), Group("tests", "exams", "en"), Group("old", "", "sw")]
EXPERTS = [0, 1, 0, 1]
TOKENS = np.array([8000.0, 500.0, 2000.0, 500.0])


def section(**keys: Any) -> MixSection:
    return section_of(MixSection, keys, "test")


def times(budgets: dict[int, int] | None = None, **keys: Any) -> list[float]:
    return epochs(Mixing(section(**keys), budgets or {}), GROUPS, EXPERTS, TOKENS).tolist()


def test_left_alone_every_group_appears_once() -> None:
    assert times() == [1, 1, 1, 1]


def test_epochs_are_those_of_the_source_else_of_the_category() -> None:
    keys = {"sources": {"tests": {"epochs": 3}}, "categories": {"exams": {"epochs": 2}, "web": {"epochs": 1.5}}}
    assert times(**keys) == [1.5, 1.5, 3, 1]


@pytest.mark.parametrize("temperature", [2.0, 5.0, 0.5])
def test_languages_get_shares_of_a_power_of_their_tokens(temperature: float) -> None:
    found = np.array(times(temperature=temperature, max_epochs=100)) * TOKENS
    english, swahili = found[[0, 2]].sum(), found[[1, 3]].sum()
    assert english / swahili == pytest.approx((10_000 / 1000) ** (1 / temperature))
    assert found.sum() == pytest.approx(TOKENS.sum())
    assert found[0] / found[2] == pytest.approx(4)  # within a language as before


def test_weights_multiply_shares_and_zero_leaves_out() -> None:
    found = np.array(times(weights={"languages": {"sw": 2}, "sources": {"tests": 0}}, max_epochs=100)) * TOKENS
    assert found[2] == 0
    assert found[0] / found[1] == pytest.approx(8)
    assert found.sum() == pytest.approx(9000)  # what has no weight is not made up for by repeating the rest


def test_a_budget_cuts_or_repeats_a_family_and_leaves_the_others() -> None:
    assert times({0: 5000}) == [0.5, 1, 0.5, 1]
    assert times({1: 3000}) == [1, 3, 1, 3]


def test_no_budget_repeats_past_max_epochs_and_the_others_take_the_rest() -> None:
    assert times({1: 100_000}, max_epochs=3) == [1, 3, 1, 3]
    found = times({1: 2000}, max_epochs=3, weights={"sources": {"old": 9}})
    assert found == [1, 1, 1, 3]  # 1500 of the 2000 tokens are all that `old` may give


def test_a_total_is_what_budgets_leave_to_the_rest() -> None:
    assert times({1: 500}, tokens=5500) == [0.5, 0.5, 0.5, 0.5]
    assert times({7: 5000}, tokens=5500) == [0.5, 0.5, 0.5, 0.5]  # of a family without text nothing is taken off


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.just(0.0) | st.floats(1e-6, 1e6), st.floats(0, 1e6)), min_size=1, max_size=8),
    st.floats(0, 1e7),
)
def test_filling_reaches_the_sum_or_every_limit_and_keeps_proportions(
    rows: list[tuple[float, float]], budget: float
) -> None:
    amounts, limits = (np.array(column) for column in zip(*rows, strict=True))
    limits = np.where(amounts > 0, limits, 0.0)
    out = fill(amounts, limits, budget)
    assert (out <= limits * (1 + 1e-9) + 1e-9).all()
    assert out.sum() == pytest.approx(min(budget, limits.sum()), rel=1e-6, abs=1e-6)
    below = (out < limits * (1 - 1e-9)) & (amounts > 1e-3)
    ratios = out[below] / amounts[below]
    assert ratios.size == 0 or ratios.max() == pytest.approx(ratios.min(), rel=1e-6, abs=1e-9)


def drawn(seed: int = 0, per_group: int = 400, **keys: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    group_of = np.repeat(np.arange(4), per_group).astype(np.int32)
    lengths = np.random.default_rng(9).integers(1, 90, 4 * per_group).astype(np.int32)
    mix = Mixing(section(**keys), {}) if keys else None
    return draw(mix, GROUPS, EXPERTS, group_of, lengths, seed), group_of, lengths


def test_without_a_mix_each_document_appears_once_in_an_order_of_the_seed() -> None:
    (one, _, _), (again, _, _), (other, _, _) = drawn(1), drawn(1), drawn(2)
    assert sorted(one.stream.tolist()) == list(range(1600))
    assert np.array_equal(one.stream, again.stream)
    assert not np.array_equal(one.stream, other.stream)
    assert not one.ordered


def test_a_fraction_of_an_epoch_is_that_part_of_the_tokens_to_within_a_document() -> None:
    found, group_of, lengths = drawn(categories={"web": {"epochs": 2.3}, "exams": {"epochs": 0.4}})
    counts = np.bincount(found.stream, minlength=len(lengths))
    for group, epochs_of in enumerate([2.3, 2.3, 0.4, 1.0]):
        mine = group_of == group
        assert set(counts[mine].tolist()) <= {int(epochs_of), int(np.ceil(epochs_of))}
        assert abs((counts * lengths)[mine].sum() - epochs_of * lengths[mine].sum()) <= 45  # half of the longest
        row = next(
            row
            for row in found.rows
            if row["source"] == GROUPS[group].source and row["language"] == GROUPS[group].language
        )
        assert (row["documents"], row["tokens"]) == (400, lengths[mine].sum())
        assert (row["appearances"], row["packed"]) == (counts[mine].sum(), (counts * lengths)[mine].sum())


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 3), st.floats(0, 3), st.integers(0, 99))
def test_more_epochs_keep_what_fewer_had(a: float, b: float, seed: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 50, 60).astype(np.int32)
    less, more = (appearances(np.array([n]), np.zeros(60, dtype=np.int32), lengths, seed) for n in sorted((a, b)))
    assert (more >= less).all()


def test_larger_priorities_come_earlier_as_the_weighted_draw_has_it() -> None:
    """Of two items with priorities 16 and 2, the first is drawn first in 16 of 18 cases."""
    found, group_of, lengths = drawn(per_group=2000, categories={"web": {"priority": 16}, "exams": {"priority": 2}})
    assert found.ordered
    place = np.empty(len(lengths))
    place[found.stream] = np.arange(len(lengths))
    early, late = place[group_of == 0], place[group_of == 2]
    assert (early < late).mean() == pytest.approx(16 / 18, abs=0.03)
    assert sorted(found.stream.tolist()) == list(range(len(lengths)))  # nothing is dropped


def test_equal_priorities_mean_no_order() -> None:
    assert not drawn(categories={"web": {"priority": 5}, "exams": {"priority": 5}}, sources={"old": {"priority": 5}})[
        0
    ].ordered


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group("medicalBook_en_qa", "", "en"), (1, 16)),
        (Group("medicalWiki_sw_qa", "", "sw"), (1, 16)),
        (Group("mine", "Guidelines", "en"), (1, 16)),
        (Group("mine", "encyclopedias", "en"), (1, 16)),
        (Group("medicalExam_en", "", "en"), (2, 2)),
        (Group("general_en", "general", "en"), (2, 2)),
        (Group("mine", "math", "en"), (2, 2)),
        (Group("website", "", "en"), (2, 2)),
        (Group("named", "papers", "en"), (3, 1)),
    ],
)
def test_the_preset_of_the_paper_takes_rewritten_text_once_and_early(
    group: Group, expected: tuple[float, float]
) -> None:
    found = pace(section(preset="apollo", sources={"named": {"epochs": 3}}), group)
    assert (found.epochs, found.priority) == expected


PRESET = load_preset("balanced")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"weights": {"languages": {"fr": 1}}}, "languages names 'fr', which the corpus does not have"),
        ({"families": {"Italik": 5}}, "there is no family 'Italik'; did you mean 'Italic'"),
    ],
)
def test_names_that_the_recipe_does_not_have_are_refused_before_anything_runs(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        mixing(section(**keys), PRESET, ["en", "sw"])


def test_a_language_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownLanguageError, match="unknown language 'xq'"):
        mixing(section(weights={"languages": {"xq": 1}}), PRESET, ["en"])


def test_unknown_sources_and_categories_are_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"sources names 'wikki', .*did you mean 'wiki'"):
        check_names(section(sources={"wikki": {}}), ["wiki", "old"], [""])
    with pytest.raises(RecipeError, match=r"categories names 'q', .*the corpus has exams, web"):
        check_names(section(weights={"categories": {"q": 1}}), [], ["web", "", "exams"])
    check_names(section(sources={"wiki": {}}, weights={"categories": {"web": 0}}), ["wiki"], ["web"])


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match="weights sum to 0"):
        times(weights={"languages": {"en": 0, "sw": 0}})


@pytest.mark.parametrize(
    "keys", [{"weights": {"sources": {"a": -1}}}, {"temperature": 0}, {"sources": {"a": {"epochs": 0}}},
             {"sources": {"a": {"epochs": 5}}}, {"preset": "apollo", "max_epochs": 1.0}, {"family_tokens": 0}],
)  # fmt: skip
def test_numbers_without_a_meaning_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        section(**keys)


def test_a_family_budget_is_named_by_family_or_language_and_goes_over_the_common_one() -> None:
    found = mixing(section(family_tokens=7, families={"sw": 9}), PRESET, ["en", "sw"])
    assert found is not None
    assert Counter(found.budgets.values()) == {7: PRESET.num_experts - 1, 9: 1}
    assert found.budgets[PRESET.expert_of("sw")] == 9
    assert mixing(None, PRESET, ["en"]) is None
