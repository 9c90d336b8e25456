"""Which words of a translation stand for a term: articles, brackets, families, acronyms, words apart."""

import pytest

from polyclinic.corpus.ask.audit import Pair, kept, strangers
from polyclinic.corpus.ask.forms import bare, has_term, pieces, rendered
from polyclinic.corpus.ask.glossary import Entry, Glossary
from polyclinic.corpus.ask.renderings import Renderings

TERMS = Glossary(
    [
        Entry("en", "infection", "es", "infección"),
        Entry("en", "infected", "es", "afectado"),
        Entry("en", "WHO", "es", "OMS"),
        Entry("en", "World Health Organization", "es", "Organización Mundial de la Salud"),
        Entry("en", "face mask", "es", "barbijo"),
        Entry("en", "mask", "es", "mascarilla"),
    ]
)


@pytest.mark.parametrize(
    ("form", "text", "language", "held"),
    [
        ("الفيروس", "انتقال للفيروس", "ar", True),
        ("الفيروس", "انتقال للفيروس", "", False),
        ("منظمة الصحة العالمية (WHO)", "قالت منظمة الصحة العالمية", "ar", True),
        ("核糖核酸（RNA）", "病毒的RNA基因组", "zh", True),
        ("случаи [заболевания]", "много заболевания", "ru", False),
    ],
)
def test_a_form_is_held_behind_an_article_and_without_its_brackets(
    form: str, text: str, language: str, held: bool
) -> None:
    assert has_term([form], text, language) is held


def test_an_article_is_cut_off_only_where_a_word_is_left() -> None:
    assert bare("الفیروس", "ar") == "فیروس"
    assert bare("الم", "ar") == "الم"
    assert bare("alfa", "es") == "alfa"


def test_a_form_is_looked_for_at_the_beginning_of_words_or_anywhere_without_spaces() -> None:
    assert rendered("la calentura", ["calen"], "es")
    assert not rendered("descalentura", ["calen"], "es")
    assert rendered("他发烧了", ["发烧"], "zh")
    assert {"calen", "calent", "calentar"} - pieces("calentar 2020", "es") == {"calen"}
    assert "2020" not in pieces("calentar 2020", "es")


def kept_terms(source: str, target: str) -> dict[str, bool]:
    pair = Pair("en", "es", source, target)
    return {term.term: kept(term, pair, TERMS, {"face": ("cara",)}) for term in TERMS.find(source, "en", "es")}


def test_a_term_is_kept_by_its_family_its_full_name_and_its_words() -> None:
    assert kept_terms("He was infected.", "Tuvo una infección.") == {"infected": True}
    assert kept_terms("The WHO said.", "Dijo la Organización Mundial de la Salud.") == {"who": True}
    assert kept_terms("A face mask.", "Una mascarilla de cara.") == {"face mask": True}
    assert kept_terms("A face mask.", "Una mascarilla.") == {"face mask": False}


def test_an_acronym_stands_in_capitals() -> None:
    assert kept_terms("The man who came.", "El hombre que vino.") == {}
    assert kept_terms("The WHO came.", "El hombre que vino.") == {"who": False}


def test_a_form_is_no_stranger_where_its_family_is_in_the_source() -> None:
    assert strangers(Pair("en", "es", "Many infections.", "Cada afectado."), TERMS) == []
    assert strangers(Pair("en", "es", "The WHO said.", "Organización Mundial de la Salud."), TERMS) == []
    assert strangers(Pair("en", "es", "The rain came.", "Vino el afectado."), TERMS) == ["afectado"]


def test_several_renderings_are_learned_without_what_stands_everywhere() -> None:
    said = ["contagio", "contagio", "contagio", "padecimiento", "padecimiento", "", ""]
    pairs = [
        *[Pair("en", "es", f"infection {n}", f"siempre {word}") for n, word in enumerate(said)],
        *[Pair("en", "es", f"rain {n}", f"siempre lluvia {n}") for n in range(40)],
    ]
    learned = Renderings(pairs, TERMS)
    assert learned.learn() == {"infection": ("contagio", "padecimiento")}
    assert learned.learn(without=[3]) == {"infection": ("contagio",)}
    assert learned.uses["infection"] == learned.lacking["infection"] == set(range(7))
