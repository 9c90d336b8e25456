"""Derived questions: the right translation among three that are wrong, the same whatever the order of the list."""

import difflib
from collections import Counter
from pathlib import Path

import pytest

from exam_files import TERMS, term_rows, write
from polyclinic.errors import DataError
from polyclinic.evaluate.suite.loading import load
from polyclinic.evaluate.suite.table import exams
from polyclinic.evaluate.suite.terms import FEW, SAME, TWICE, fold, records, terms, usable, words
from polyclinic.records import Question

EXAM = exams()["tico19_terms_derived"]
# English and German, by hand.
PAIRS = [
    ("fever", "Fieber"), ("lockdown", "Ausgangssperre"), ("quarantine", "Quarantäne"), ("nurse", "Krankenpfleger"),
    ("cough", "Husten"), ("ventilator", "Beatmungsgerät"), ("soap", "Seife"), ("pathogen", "Erreger"),
    ("mask", "Maske"), ("shortness of breath", "Atemnot"), ("death rate", "Todesrate"), ("curfew", "Sperrstunde"),
]  # fmt: skip


def folder(root: Path, pairs: list[tuple[str, str]]) -> Path:
    for code, side in (("en", 0), ("de", 1)):
        blank = term_rows(code)[1]
        made = [{**blank, "id": f"t:{i}", "parallel_id": f"p:{i}", "text": p[side]} for i, p in enumerate(pairs)]
        write(root / f"text/{code}.jsonl", made)
    return root


def asked(root: Path, left_out: Counter[str] | None = None) -> list[Question]:
    return [r.question for r in records(EXAM, "de", root, Counter() if left_out is None else left_out)]


def test_the_right_option_is_the_translation_and_the_others_are_of_the_same_list(tmp_path: Path) -> None:
    questions = asked(folder(tmp_path, PAIRS))
    german = dict(PAIRS)
    assert len(questions) == len(PAIRS)
    for question in questions:
        english = question.question.removesuffix(" (English) = ? (Deutsch)")
        assert [question.options[i] for i in question.answers] == [german[english]]
        assert len(set(question.options)) == 4
        assert set(question.options) <= set(german.values())
        assert question.source == "tico19_terms_derived"
    assert {q.group for q in questions} == {f"p:{i}" for i in range(len(PAIRS))}
    assert len({q.answers for q in questions}) > 1


def test_a_question_is_the_same_whatever_the_order_of_the_lists(tmp_path: Path) -> None:
    first = {q.id: q for q in asked(folder(tmp_path / "a", PAIRS))}
    for code in ("en", "de"):
        lines = (tmp_path / "a/text" / f"{code}.jsonl").read_text("utf-8").splitlines()
        (tmp_path / "b/text").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b/text" / f"{code}.jsonl").write_text("\n".join(lines[::-1]) + "\n", "utf-8")
    assert {q.id: q for q in asked(tmp_path / "b")} == first


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("fever", "Temperaturerhöhung"),  # another translation of the same term
        ("pyrexia", "FIEBER!"),  # another term, translated the same
        ("high fever", "hohe Temperatur"),  # shares a word of the English term
        ("fevers", "Temperaturen"),  # nearly the English term
        ("pyrexia", "ansteckendes Fieber"),  # holds the translation
        ("pyrexia", "Fiebern"),  # is nearly the translation
    ],
)
def test_what_may_be_right_is_never_a_wrong_answer(tmp_path: Path, english: str, german: str) -> None:
    assert _options_of("fever", tmp_path, [("fever", "Fieber"), (english, german), *PAIRS[1:4]]).isdisjoint({german})


def test_another_translation_of_the_term_is_no_wrong_answer_under_another_english_term(tmp_path: Path) -> None:
    pairs = [("fever", "Fieber"), ("fever", "Hitze"), ("warmth", "Hitze"), *PAIRS[1:4]]
    assert "Hitze" not in _options_of("fever", tmp_path, pairs)


def _options_of(english: str, root: Path, pairs: list[tuple[str, str]]) -> set[str]:
    """Return the options of the question about the first of the pairs, of which only three can be wrong answers."""
    question = next(q for q in asked(folder(root, pairs)) if q.id == "t:0-de")
    assert question.question.startswith(english)
    return set(question.options)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("COVID-19", "novel coronavirus", False),
        ("COVID-19 outbreak", "coronavirus outbreak", False),
        ("COVID-19 outbreak", "nCoV", False),
        ("COVID-19 outbreak", "coronavirus vaccine", True),
        ("COVID-19", "vaccine", True),
    ],
)
def test_names_of_the_one_disease_are_no_wrong_answers_for_each_other(
    tmp_path: Path, one: str, other: str, apart: bool
) -> None:
    pairs = [(one, "Eins"), (other, "Zweitausend"), *PAIRS[:2]]
    left_out: Counter[str] = Counter()
    options = {q.id: q.options for q in asked(folder(tmp_path, pairs), left_out)}
    assert ("t:0-de" in options) is apart
    assert left_out[FEW] >= (not apart)


def test_terms_written_as_in_english_and_repeated_ones_are_not_asked_but_counted(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    pairs = [*PAIRS, ("AIDS", "aids"), ("Fever", "Fieber"), ("fever", "Hitze")]
    questions = asked(folder(tmp_path, pairs), left_out)
    assert left_out == Counter({SAME: 1, TWICE: 1})
    assert len(questions) == len(PAIRS) + 1


def test_of_those_drawn_the_ones_that_look_like_the_english_term_are_taken(tmp_path: Path) -> None:
    """Thirty others, three of which have the letters of the term."""
    lures = [("gown", "venti"), ("towel", "atorlat"), ("swab", "ntila")]
    others = [(f"{'bcdfghjklmnpqrstvwxz'[i]}uo{i}x", f"{'bcdfghjkmpqswxz'[i % 15]}uu{i:02d}") for i in range(20)]
    question = asked(folder(tmp_path, [("ventilator", "Beatmungsgerät"), *lures, *others]))[0]
    assert set(question.options) == {"Beatmungsgerät", *(german for _, german in lures)}


@pytest.mark.parametrize(
    ("text", "folded"),
    [("Fièvre !", "fievre"), ("ＡＢＣ-1", "abc1"), ("Straße", "strasse"), ("كُوفيد", "كوفيد"), ("発熱・咳", "発熱咳")],
)
def test_folding_keeps_letters_and_digits_alone(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_words_of_a_term_are_its_longer_ones_without_the_name_of_the_disease() -> None:
    assert words("COVID-19 outbreak in Asia") == (frozenset({"outbreak", "asia"}), True)
    assert words("shortness of breath") == (frozenset({"shortness", "breath"}), False)


def test_every_language_of_the_table_has_its_questions_and_its_pool(data: Path) -> None:
    for code in ("sw", "lo", "no"):
        loaded = load(EXAM, code)
        assert len(loaded.questions) == TERMS - EXAM.pool
        assert len(loaded.pool) == EXAM.pool


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, PAIRS)
    (root / "text/de.jsonl").unlink()
    with pytest.raises(DataError, match=r"de.jsonl: no such file"):
        load(EXAM, "de", root)


@pytest.mark.parametrize("code", ["de", "sw", "he"])
def test_on_the_real_lists_no_wrong_answer_translates_the_term(real: Path, code: str) -> None:
    """By another way than ours: every pair of the two lists, looked up by what is written."""
    accepted: dict[str, set[str]] = {}
    found = terms(EXAM, code, real)
    for term in found:
        accepted.setdefault(term.english.casefold(), set()).add(term.native.casefold())
    loaded = load(EXAM, code, real)
    assert len(loaded.questions) + len(loaded.pool) == len(usable(found, Counter()))
    for question in (*loaded.questions, *loaded.pool):
        english = question.question.split(" (English)")[0].casefold()
        right = question.options[question.answers[0]]
        assert right.casefold() in accepted[english]
        for option in set(question.options) - {right}:
            assert option.casefold() not in accepted[english]
            assert difflib.SequenceMatcher(None, fold(option), fold(right), False).ratio() < 0.8
    assert {q.answers[0] for q in loaded.questions} == {0, 1, 2, 3}
