"""Exam words: whole, in their own script, clean, and loud where one is missing."""

import re
import unicodedata
from dataclasses import fields
from importlib.resources import files

import pytest

from polyclinic.errors import DataError
from polyclinic.evaluate.literals import Literals, from_text, languages_with_words, literals
from polyclinic.families import fifty
from polyclinic.languages import language

CODES = languages_with_words()
ENGLISH = files("polyclinic").joinpath("data/words/en.yaml").read_text("utf-8")
# ISO 15924 to the first words of Unicode names.
NAMES = {
    "Latn": {"LATIN"},
    "Cyrl": {"CYRILLIC"},
    "Arab": {"ARABIC"},
    "Hebr": {"HEBREW"},
    "Deva": {"DEVANAGARI"},
    "Thai": {"THAI"},
    "Laoo": {"LAO"},
    "Hans": {"CJK"},
    "Jpan": {"CJK", "HIRAGANA", "KATAKANA"},
    "Kore": {"HANGUL"},
}
LATIN_BY_CUSTOM = {"zh", "ja", "ko"}


def texts(words: Literals) -> list[str]:
    out: list[str] = []
    for field in fields(words):
        value = getattr(words, field.name)
        out += [value] if isinstance(value, str) else value
    return out


def scripts(text: str) -> set[str]:
    letters = [char for char in text.replace("{answer}", "") if unicodedata.category(char)[0] == "L"]
    return {unicodedata.name(char).split()[0].split("-")[0] for char in letters}


def test_the_fifty_and_the_languages_of_exams_beyond_them_have_words() -> None:
    assert set(CODES) == {*fifty(), "hu", "mk", "tr"}


@pytest.mark.parametrize("code", CODES)
def test_every_literal_is_in_the_script_of_its_language(code: str) -> None:
    words, allowed = literals(code), NAMES[language(code).script]
    letters = scripts("".join(words.letters))
    assert letters == ({"LATIN"} if code in LATIN_BY_CUSTOM else allowed)
    for text in set(texts(words)) - set(words.letters):
        assert scripts(text), text
        assert scripts(text) <= allowed, text


@pytest.mark.parametrize("code", CODES)
def test_every_literal_is_composed_and_holds_nothing_invisible(code: str) -> None:
    for text in texts(literals(code)):
        assert text == unicodedata.normalize("NFC", text).strip()
        assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for char in text), text


@pytest.mark.parametrize("code", CODES)
def test_letters_are_ten_or_more_and_never_taken_for_one_another(code: str) -> None:
    folded = [unicodedata.normalize("NFKC", letter).casefold() for letter in literals(code).letters]
    assert len(set(folded)) == len(folded) >= 10


@pytest.mark.parametrize("code", CODES)
def test_words_that_mean_different_things_differ(code: str) -> None:
    words = literals(code)
    assert words.question != words.answer
    kinds = [{word.casefold() for word in kind} for kind in (words.yes, words.no, words.maybe)]
    assert len(set.union(*kinds)) == sum(map(len, kinds))
    assert not set(words.and_) & set(words.or_)
    assert words.instruction != words.instruction_several


@pytest.mark.parametrize("code", CODES)
def test_sentences_hold_the_answer_once_and_no_other_field(code: str) -> None:
    words = literals(code)
    for sentence in (words.states, words.chain):
        assert re.findall("{[^}]*}", sentence) == ["{answer}"]
    for sentence in (words.instruction, words.instruction_several):
        assert "{" not in sentence


def test_no_other_language_repeats_a_sentence_of_english() -> None:
    english = literals("en")
    for code in set(CODES) - {"en"}:
        assert not {s for s in texts(literals(code)) if " " in s} & set(texts(english)), code


def test_english_has_four_other_wordings_of_the_instruction() -> None:
    words = literals("en")
    assert len({words.instruction, *words.paraphrases}) >= 5


@pytest.mark.parametrize("key", re.findall(r"^(\w+):", ENGLISH, re.MULTILINE)[:-1])
def test_a_missing_or_empty_literal_names_file_language_and_key(key: str) -> None:
    without = re.sub(rf"^{key}: .*\n", "", ENGLISH, flags=re.MULTILINE)
    for text in (without, f"{without}{key}: ''\n", f"{without}{key}: []\n", f"{without}{key}: 3\n"):
        with pytest.raises(DataError) as caught:
            from_text("xx", text)
        expected = f"data/words/xx.yaml: language 'xx' has no literal '{key}'; write {key} as in data/words/en.yaml"
        assert str(caught.value) == expected


def test_a_literal_nobody_knows_is_refused() -> None:
    with pytest.raises(DataError, match=r"data/words/xx\.yaml: language 'xx': unknown literal 'anwser'"):
        from_text("xx", ENGLISH + "anwser: 'x'\n")


@pytest.mark.parametrize("code", ["xx", "../en", "", "en.yaml"])
def test_a_language_without_words_names_the_file_to_add(code: str) -> None:
    with pytest.raises(DataError, match=r"^data/words/.*no exam words for language"):
        literals(code)


def test_no_and_yes_stay_words_in_yaml() -> None:
    assert (literals("es").no, literals("no").no, literals("en").yes) == (("no",), ("nei",), ("yes",))
