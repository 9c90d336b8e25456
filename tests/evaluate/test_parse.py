"""What a model wrote is read as what it picked: every letter of every language in every form, and no other text."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.errors import DataError
from polyclinic.evaluate.literals import ASCII_LETTERS, languages_with_words, literals
from polyclinic.evaluate.parse import parse, parse_paper

CODES = languages_with_words()
DRUGS = ("aspirin", "E. coli", "warfarin", "heparin", "insulin")
# Texts of options that no language's words and letters touch.
PLAIN = tuple(f"⟦{number}⟧" * 2 for number in range(10))
# Cyrillic letters that a Latin one could be meant for: the same letter to the eye, another place in the alphabet.
MISTAKABLE = {"B": "В", "E": "Е", "H": "Н"}

codes = st.sampled_from(CODES)
places = st.integers(0, 9)


def presentation(letter: str) -> str:
    """Return an Arabic letter in its isolated presentation form, other letters as they are."""
    forms = (chr(code) for code in range(0xFE70, 0xFEFD))
    return next((form for form in forms if unicodedata.normalize("NFKC", form) == letter), letter)


def full_width(letter: str) -> str:
    return chr(ord(letter) + 0xFEE0) if letter.isascii() else letter


def forms(letter: str, code: str) -> list[str]:
    """Return every form in which an answer may give a letter."""
    words = literals(code)
    bare = [letter, letter.lower(), full_width(letter), presentation(letter), letter + "ـ"]
    marked = [
        f"{x}{end}" for x in bare for end in (".", ")", "）", ":", "．", "。", "!", "\n", ". ⟨because⟩", ") ⟨because⟩")
    ]
    wrapped = [
        f"{a}{letter}{b}" for a, b in ("()", "（）", "[]", "【】", "「」", "“”", ("**", "**"), ("\\boxed{", "}"))
    ]
    said = [f"{one}: {form}" for one in words.introduced_by for form in (letter, f"({letter})", f"**{letter}**")]
    said += [
        f"{words.answer}:{letter}",
        f"**{words.answer}:** {letter}.",
        f"{words.answer}\n{letter}",
        f"Answer: {letter}",
    ]
    said += [words.states.format(answer=form) for form in (letter, f"({letter})")]
    said += [f"{one} {letter}" for one in words.option]
    return [*bare, *marked, *wrapped, *said, f"The answer is {letter}.", f"The correct answer is ({letter})"]


@settings(deadline=None, max_examples=400)
@given(code=codes, place=places, data=st.data())
def test_every_letter_in_every_form_is_the_option_it_names(code: str, place: int, data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(forms(literals(code).letters[place], code)))
    assert parse(form, code, PLAIN) == (place,)
    assert parse(form, code, PLAIN, several=True) == (place,)
    assert parse(
        f"{PLAIN[0]} ⟨because⟩\n{literals(code).answer}: {literals(code).letters[place]}", code, PLAIN, chain=True
    ) == (place,)


@pytest.mark.parametrize("code", CODES)
def test_latin_letters_are_understood_unless_they_could_be_another_letter(code: str) -> None:
    native = [unicodedata.normalize("NFKC", letter) for letter in literals(code).letters]
    for place, letter in enumerate(ASCII_LETTERS):
        twin = MISTAKABLE.get(letter)
        for form in forms(letter, code) if twin not in native else ():
            assert parse(form, code, PLAIN) == (place,), form
        if twin in native:
            assert native.index(twin) != place
            assert parse(letter, code, PLAIN) is None
            assert parse(f"{literals(code).answer}: {letter}", code, PLAIN) is None


def test_a_latin_letter_is_itself_where_the_one_it_looks_like_is_no_option() -> None:
    assert parse("B", "ru", ("да", "нет")) == (1,)
    assert parse("В", "ru", ("да", "нет", "возможно")) == (2,)


@pytest.mark.parametrize("code", CODES)
def test_numbers_in_any_digits_are_places(code: str) -> None:
    for place in range(5):
        own = ["٠١٢٣٤٥", "०१२३४५", "๐๑๒๓๔๕", "０１２３４５"]
        shapes = [str(place + 1), chr(0x2460 + place), chr(0x2474 + place), *(digits[place + 1] for digits in own)]
        for shape in shapes:
            assert parse(shape, code, PLAIN) == (place,)
            assert parse(f"{literals(code).answer}: {shape}.", code, PLAIN) == (place,)
    assert parse("11", code, PLAIN) is None
    assert parse("0", code, PLAIN) is None


@pytest.mark.parametrize("code", CODES)
def test_the_instructions_themselves_hold_no_answer(code: str) -> None:
    words = literals(code)
    for text in (words.instruction, words.instruction_several, words.question, words.answer, f"{words.answer}:"):
        for several in (False, True):
            for chain in (False, True):
                assert parse(text, code, PLAIN, several, chain) is None, text


@settings(deadline=None, max_examples=200)
@given(code=codes, words=st.lists(st.text("lmnoprstuvwxyz", min_size=3, max_size=9), max_size=9), chain=st.booleans())
def test_text_without_any_mark_is_not_an_answer(code: str, words: list[str], chain: bool) -> None:
    assert parse(" ".join(words).capitalize() + ".", code, PLAIN, chain=chain) is None


@settings(deadline=None, max_examples=400)
@given(
    raw=st.text(max_size=60)
    | st.lists(st.sampled_from([*"AB(）:.,و\n*①２", "Answer:", "答案", " or ", "\ud800"])).map("".join),
    code=codes,
    options=st.lists(st.text(max_size=5), min_size=1, max_size=12),
    several=st.booleans(),
    chain=st.booleans(),
)
def test_any_text_is_picks_in_order_or_nothing(
    raw: str, code: str, options: list[str], several: bool, chain: bool
) -> None:
    picked = parse(raw, code, options, several, chain)
    assert picked is None or (picked == tuple(sorted(set(picked))) and picked[0] >= 0 and picked[-1] < len(options))
    assert picked is None or several or len(picked) == 1
    assert parse_paper(raw, options) in [None, *((place,) for place in range(min(6, len(options))))]


@pytest.mark.parametrize("code", CODES)
def test_and_joins_letters_and_or_is_no_answer_in_every_language(code: str) -> None:
    words, options = literals(code), PLAIN[:4]
    first, third = words.letters[0], words.letters[2]
    for joint in (", ", "、", " / ", "; ", *(f" {one} " for one in words.and_), f", {words.and_[0]} "):
        assert parse(f"{first}{joint}{third}", code, options, several=True) == (0, 2), joint
        assert parse(f"{words.answer}: {first}{joint}{third}.", code, options, several=True) == (0, 2), joint
        assert parse(f"{first}{joint}{third}", code, options) is None, joint
    for pair in (f"({first})({third})", f"({first}) ({third})"):
        assert parse(pair, code, options) is None
        assert parse(pair, code, options, several=True) == (0, 2)
    assert parse(first + third, code, options, several=True) == (0, 2)
    assert parse(first + third, code, options) is None
    for either in words.or_:
        for several in (False, True):
            assert parse(f"{first} {either} {third}", code, options, several) is None
            assert parse(f"{words.answer}: {first} {either} {third}", code, options, several) is None
    assert parse(f"{first}, {first}", code, options) == (0,)


@pytest.mark.parametrize("code", CODES)
def test_yes_no_and_maybe_are_answers_where_the_options_are_these(code: str) -> None:
    words = literals(code)
    options = (words.no[0], words.yes[0], words.maybe[0])
    for place, said in enumerate((words.no, words.yes, words.maybe)):
        for word in said:
            for form in (
                word,
                f"{word}.",
                word.capitalize(),
                f"**{word}**",
                f"{word}, lmn.",
                f"{words.answer}: {word}",
            ):
                assert parse(form, code, options) == (place,), form
                assert parse(form, code, PLAIN[:4]) is None, form
    assert parse("Yes.", code, options) == (1,)
    assert parse("Maybe", code, options) == (2,)


@pytest.mark.parametrize("code", CODES)
def test_the_last_answer_that_is_introduced_counts_behind_reasoning(code: str) -> None:
    words = literals(code)
    a, b, c = words.letters[:3]
    reasoned = f"{words.answer}: {a}? ({b}) lmn.\n{words.states.format(answer=b)}\n\n{words.answer}: {c}\n"
    assert parse(reasoned, code, PLAIN, chain=True) == (2,)
    assert parse(reasoned, code, PLAIN) is None
    assert parse(f"lmn ({a}) nop\n{c}", code, PLAIN, chain=True) == (2,)
    made_up = f"{words.answer}: {b}\n\n{words.question}: lmn\n{words.answer}: {c}"
    assert parse(made_up, code, PLAIN, chain=True) == parse(made_up, code, PLAIN) == (1,)


READ = [
    ("aspirin", (0,)),
    ("Aspirin.", (0,)),
    ("The right answer is warfarin.", (2,)),
    ("Answer:\nWARFARIN", (2,)),
    ("E. coli", (1,)),
    ("E. insulin", (4,)),
    ("B. E. coli", (1,)),
    ("A aspirin", (0,)),
    ("B is no word", None),
    ("Option C", (2,)),
    ("C - warfarin", (2,)),
    ("The answer is A because of it", (0,)),
    ("The answer is D because of it", (3,)),
    ("I would say (D).", (3,)),
    ("<think>The answer is A, no</think>B", (1,)),
    ("\n\n  C\n", (2,)),
    ("B\nIt lowers fever.", (1,)),
]
NOT_READ = [
    "",
    " \n ",
    "A or B",
    "Either A or B",
    "A, B",
    "A. warfarin",
    "E. coli infection",
    "B (heparin)",
    "B12",
    "B-cell lymphoma",
    "B+",
    "A patient has a fever",
    "Answer: A patient has a fever",
    "The answer is a blood clot",
    "Answer: not B",
    "The answer is not B",
    "2 mg",
    "2.5",
    "2-3 days",
    "50 %",
    "I cannot answer this question.",
    "I am not a doctor; please see one.",
    "None of these",
    "I don't know.",
    "A. aspirin\nB. E. coli\nC. warfarin",
    "B\nThe answer is C",
    "The answer is B.\nThe answer is C.",
    "(A) or (B)",
    "Could be (A), could be (B).",
    "The right answer is B+ blood",
    "We discard answer B.",
    "Answer 2 is incorrect.",
    "Answer B is incorrect.",
    "A child (answer 1) would cry.",
    "The dominant allele (A) " + "is inherited " * 8,
]


@pytest.mark.parametrize(("raw", "picked"), READ)
def test_an_answer_is_read(raw: str, picked: tuple[int, ...] | None) -> None:
    assert parse(raw, "en", DRUGS) == picked


@pytest.mark.parametrize("raw", NOT_READ)
def test_what_says_nothing_or_two_things_is_not_read(raw: str) -> None:
    assert parse(raw, "en", DRUGS) is None


@pytest.mark.parametrize(
    ("raw", "picked"),
    [
        ("A. aspirin\nC. warfarin", (0, 2)),
        ("A: aspirin; C: warfarin", (0, 2)),
        ("A) aspirin and C) warfarin", (0, 2)),
        ("aspirin, insulin", (0, 4)),
        ("ACE", (0, 2, 4)),
        ("C, A, and D.", (0, 2, 3)),
        ("A, B or C", None),
        ("B. E. coli", (1,)),
        ("The right answers: all", None),
    ],
)
def test_several_answers_are_read_as_a_set(raw: str, picked: tuple[int, ...] | None) -> None:
    assert parse(raw, "en", DRUGS, several=True) == picked


@pytest.mark.parametrize(
    ("raw", "code", "options", "picked"),
    [
        ("正解はBです。", "ja", DRUGS, (1,)),
        ("Bです", "ja", DRUGS, (1,)),
        ("所以正确答案是C。", "zh", DRUGS, (2,)),
        ("B、阿司匹林", "zh", DRUGS, (1,)),
        ("B.阿司匹林", "zh", DRUGS, (1,)),
        ("따라서 정답은 D입니다.", "ko", DRUGS, (3,)),
        ("D입니다.", "ko", DRUGS, (3,)),
        ("क है।", "hi", DRUGS, (0,)),
        ("A型肝炎", "ja", DRUGS, None),
        ("सही उत्तर ख है।", "hi", DRUGS, (1,)),
        ("คำตอบคือข้อ ข", "th", DRUGS, (1,)),
        ("ข้าว", "th", DRUGS, None),
        ("فالإجابة الصحيحة هي (ب)", "ar", DRUGS, (1,)),
        ("ا", "ar", DRUGS, (0,)),
        ("أ وج", "ar", DRUGS[:4], None),
        ("א ו-ג", "he", DRUGS[:4], None),
        ("Ответ: В связи с этим", "ru", DRUGS, None),
        ("Б C", "bg", ("P", "C", "N", "К"), (1,)),
        ("D 1", "sq", ("46", "2", "23", "1"), (3,)),
        ("да, это так", "ru", ("да", "нет"), (0,)),
        ("Yes", "ru", ("да", "нет"), (0,)),
    ],
)
def test_answers_of_other_languages_are_read(
    raw: str, code: str, options: tuple[str, ...], picked: tuple[int, ...] | None
) -> None:
    assert parse(raw, code, options) == picked


def test_a_number_that_is_an_option_is_that_option_and_a_letter_that_is_another_is_open() -> None:
    assert parse("2", "en", ("4", "3", "2")) == (2,)
    assert parse("B", "en", ("B", "A", "0")) is None
    assert parse("B", "en", ("A", "B", "0")) == (1,)


def test_the_text_of_two_options_alike_names_neither() -> None:
    assert parse("Aspirin", "en", ("aspirin", "Aspirin.", "water")) is None


def test_a_language_without_words_is_an_error() -> None:
    with pytest.raises(DataError, match="no exam words for language 'xx'"):
        parse("B", "xx", DRUGS)


@pytest.mark.parametrize(
    ("raw", "picked"),
    [
        ("(B)", 1),
        ("（b） it is", 1),
        ("\n\nThe answer is (C).\n(D)", 2),
        ("(A) or (B) or (B)", 1),
        ("(D) or (A)", 3),  # equally frequent: the first
        ("It is B", 1),
        ("Fever is treated", 5),  # a fault: any capital
        ("An old Drug, Each Day", 3),
        ("a b c", None),
        ("(ب)", 1),
        ("ب)", 1),
        ("(س", 2),
        ("(ك)", 2),
        ("(ج)", None),  # a fault: jim is not known
        ("د", None),
        ("(A) (ب) (ب)", 0),  # a fault: an Arabic letter counts once
        ("Yes.", 0),
        ("No.", 1),
        ("Yes", None),
        ("No. ", None),
        ("", None),
        ("\n", None),
        (" \nB", None),  # a line of spaces is not empty
        ("(E)", None),  # beyond the options
    ],
)
def test_the_papers_parser_has_its_faults(raw: str, picked: int | None) -> None:
    options = DRUGS[:4] if raw == "(E)" else (*DRUGS, "water")
    assert parse_paper(raw, options) == (None if picked is None else (picked,))
