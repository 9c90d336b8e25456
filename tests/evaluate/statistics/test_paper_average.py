"""The paper's averages: sets before languages in English and Chinese, items elsewhere, majors and minors apart."""

import pytest

from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.paper_average import paper_average


def answered(language: str, exam: str, right: int, wrong: int) -> list[Item]:
    picks = [(0,)] * right + [(1,)] * wrong
    return [Item(f"{exam}_{language}", exam, language, f"{exam}{i}", "", 4, (0,), pick) for i, pick in enumerate(picks)]


def test_english_is_the_mean_of_its_sets_and_german_pools_them() -> None:
    both = [("one", 8, 2), ("two", 10, 90)]
    items = [
        item for code in ("en", "de") for exam, right, wrong in both for item in answered(code, exam, right, wrong)
    ]
    found = paper_average(items)["languages"]
    assert found["en"] == pytest.approx((0.8 + 0.1) / 2)
    assert found["de"] == pytest.approx(18 / 110)


def test_majors_and_minors_are_plain_means_over_their_languages() -> None:
    items = [
        *answered("ar", "e", 1, 1),
        *answered("fr", "e", 30, 0),
        *answered("sw", "e", 1, 3),
        *answered("hu", "e", 5, 0),
    ]
    found = paper_average(items)
    assert found["majors"] == pytest.approx(0.75)
    assert found["minors"] == pytest.approx(0.25)
    assert "college_medicine" in found["unsaid"]


def test_without_a_language_of_a_tier_there_is_no_mean() -> None:
    assert paper_average(answered("sw", "e", 1, 1))["majors"] is None


def test_an_answer_that_could_not_be_read_is_not_right() -> None:
    items = [item._replace(picked=None) for item in answered("fr", "e", 2, 2)]
    assert paper_average(items)["languages"] == {"fr": 0.0}
