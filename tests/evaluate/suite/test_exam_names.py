"""Names of exams: what each chooses, and the nearest for what is none."""

import pytest

from polyclinic.errors import UsageError
from polyclinic.evaluate.suite.names import chosen
from polyclinic.evaluate.suite.table import exams


def said(*names: str, languages: list[str] | None = None) -> list[str]:
    return [f"{exam.name}_{code}" for exam, code in chosen(names, languages)]


def test_the_sets_are_what_they_are_called() -> None:
    kinds = {name: {exam.kind for exam, _ in chosen([name])} for name in ("all", "all-local", "paper")}
    assert kinds == {"all": {"local", "derived", "hub"}, "all-local": {"local", "derived"}, "paper": {"hub"}}
    assert len(said("all")) == sum(len(e.languages) for e in exams().values() if e.kind != "lm-eval")


def test_an_exam_means_all_its_languages_and_one_with_a_language_that_one() -> None:
    assert said("casimedicos") == ["casimedicos_en", "casimedicos_es", "casimedicos_fr", "casimedicos_it"]
    assert said("headqa_es", "casimedicos_it", "casimedicos_it") == ["casimedicos_it", "headqa_es"]
    assert said("careqa_en") == ["careqa_en"]


def test_languages_choose_among_what_is_named() -> None:
    assert said("casimedicos", "headqa", languages=["ES"]) == ["casimedicos_es", "headqa_es"]
    assert said("all-local", languages=["sw", "ar"]) == [
        "exams_biology_ar", "mmlu_arabic_medical_ar", "tico19_terms_derived_ar", "tico19_terms_derived_sw",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "languages", "words"),
    [
        (["casimedico"], None, "there is no exam 'casimedico'; did you mean casimedicos"),
        (["casimedicos_de"], None, "no exam 'casimedicos_de'; it has en, es, fr, it; did you mean casimedicos"),
        (["qqqqqqqq"], None, "see polyclinic evaluate list"),
        (["headqa"], ["swahilli"], r"unknown language 'swahilli'; did you mean sw \(Swahili\)"),
        (["headqa"], ["de"], "no exam in de"),
        ([], None, "no exam in any language"),
    ],
)
def test_what_is_unknown_is_one_line_with_the_nearest(
    names: list[str], languages: list[str] | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        chosen(names, languages)
    assert "\n" not in str(caught.value)
