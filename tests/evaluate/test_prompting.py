"""Prompts: every byte as written out by hand, in every script; the instruction alone can be changed."""

from dataclasses import replace

import pytest

from polyclinic.errors import DataError, UsageError
from polyclinic.evaluate.exam_layouts import equivalent_layouts, layouts
from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.prompting import document, draw, subsets
from polyclinic.evaluate.protocol import PROTOCOLS, Protocol
from polyclinic.families import fifty
from polyclinic.records import Question

LETTER, OPTION, CHAIN, PAPER = (PROTOCOLS[name] for name in ("letter", "option", "chain", "paper"))


def question(
    language: str = "en",
    asked: str = "Which?",
    options: tuple[str, ...] = ("x", "y"),
    answers: tuple[int, ...] = (0,),
    context: str = "",
    number: int = 0,
) -> Question:
    return Question(f"q{number}", language, "s", "l", f"g{number}", "test", asked, options, answers, context)


def prompt(asked: Question, shots: list[Question], protocol: Protocol, several: bool = False) -> str:
    made = document(asked, shots, protocol, several)
    assert made is not None
    return str(made["prompt"])


GOLDEN = {
    "ar": (
        question("ar", "ما الدواء؟", ("ماء", "ملح"), (1,)),
        "فيما يلي أسئلة اختيار من متعدد في الطب. اذكر حرف الخيار الصحيح.\n\n"
        "السؤال: ما الدواء؟\nأ. ماء\nب. ملح\nالجواب: ب"
        "\n\nالسؤال: ما الدواء؟\nأ. ماء\nب. ملح\nالجواب:",
    ),
    "hi": (
        question("hi", "दवा क्या है?", ("पानी", "नमक"), (0,)),
        "नीचे चिकित्सा के बहुविकल्पीय प्रश्न दिए गए हैं। सही विकल्प का अक्षर बताइए।\n\n"
        "प्रश्न: दवा क्या है?\nक. पानी\nख. नमक\nउत्तर: क"
        "\n\nप्रश्न: दवा क्या है?\nक. पानी\nख. नमक\nउत्तर:",
    ),
    "th": (
        question("th", "ยาคืออะไร", ("น้ำ", "เกลือ"), (1,)),
        "ต่อไปนี้เป็นคำถามแบบเลือกตอบเกี่ยวกับการแพทย์ โปรดตอบเป็นตัวอักษรของตัวเลือกที่ถูกต้อง\n\n"
        "คำถาม: ยาคืออะไร\nก. น้ำ\nข. เกลือ\nคำตอบ: ข"
        "\n\nคำถาม: ยาคืออะไร\nก. น้ำ\nข. เกลือ\nคำตอบ:",
    ),
    "zh": (
        question("zh", "药是什么？", ("水", "盐"), (0,)),
        "以下是医学选择题。请给出正确选项的字母。\n\n问题: 药是什么？\nA. 水\nB. 盐\n答案: A\n\n"
        "问题: 药是什么？\nA. 水\nB. 盐\n答案:",
    ),
    "ru": (
        question("ru", "Что это?", ("вода", "соль"), (1,)),
        "Ниже приведены вопросы по медицине с вариантами ответа. Укажите букву правильного варианта.\n\n"
        "Вопрос: Что это?\nА. вода\nБ. соль\nОтвет: Б\n\nВопрос: Что это?\nА. вода\nБ. соль\nОтвет:",
    ),
    "sw": (
        question("sw", "Dawa ni nini?", ("maji", "chumvi"), (1,)),
        "Yafuatayo ni maswali ya kuchagua kuhusu tiba. Toa herufi ya jibu sahihi.\n\n"
        "Swali: Dawa ni nini?\nA. maji\nB. chumvi\n"
        "Jibu: B\n\nSwali: Dawa ni nini?\nA. maji\nB. chumvi\nJibu:",
    ),
}


@pytest.mark.parametrize("code", GOLDEN)
def test_a_prompt_with_one_example_is_exactly_the_one_written_by_hand(code: str) -> None:
    asked, expected = GOLDEN[code]
    assert prompt(asked, [asked], LETTER) == expected


LAYOUTS = {
    "plain": "Note.\nQuestion: Which?\nA. x\nB. y\nAnswer:",
    "brackets": "Note.\nQuestion: Which?\n(A) x\n(B) y\nAnswer:",
    "bracket": "Note.\nQuestion: Which?\nA) x\nB) y\nAnswer:",
    "one_line": "Note.\nQuestion: Which?\nOptions: A) x; B) y\nAnswer:",
    "late_context": "Question: Which?\nNote.\nOptions:\nA: x\nB: y\nAnswer:",
    "paper": "User:\nNote.\nQuestion: Which?\nOptions:\n(A) x\n(B) y\nAssistant:",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_exactly_the_one_written_by_hand(name: str) -> None:
    protocol = Protocol(layout=name, instruction="none")
    assert prompt(question(context="Note."), [], protocol) == LAYOUTS[name]
    assert prompt(question(), [], protocol) == LAYOUTS[name].replace("Note.\n", "")


def test_layouts_that_ask_the_same_are_four_or_more_and_plain_is_the_first() -> None:
    assert set(LAYOUTS) == set(layouts())
    assert equivalent_layouts()[0] == "plain"
    assert len(equivalent_layouts()) >= 4
    assert "paper" not in equivalent_layouts()


def test_an_unknown_layout_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown layout 'fancy'; there are plain, brackets"):
        document(question(), [], Protocol(layout="fancy"))


@pytest.mark.parametrize("code", sorted(fifty()))
def test_the_language_of_the_instruction_changes_the_instruction_alone(code: str) -> None:
    asked = question(code)
    none, english, native = (
        prompt(asked, [asked], Protocol(instruction=i))  # type: ignore[arg-type]
        for i in ("none", "english", "native")
    )
    assert english == f"{literals('en').instruction}\n\n{none}"
    assert native == f"{literals(code).instruction}\n\n{none}"
    assert literals(code).question in none


@pytest.mark.parametrize("code", sorted(fifty()))
def test_options_scored_by_their_text_are_not_listed_and_nothing_is_said_of_letters(code: str) -> None:
    words = literals(code)
    made = document(question(code, context="Ça."), [], OPTION)
    assert made is not None
    assert made["prompt"] == f"Ça.\n{words.question}: Which?\n{words.answer}:"
    assert (made["choices"], made["gold"]) == (["x", "y"], 0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layout_lists_options_that_are_scored_by_their_text(name: str) -> None:
    text = prompt(question(context="Note."), [], replace(OPTION, layout=name))
    assert "Options" not in text
    assert "x" not in text


def test_reasoning_is_asked_for_in_place_of_the_answer_and_examples_have_none() -> None:
    assert prompt(question("de"), [question("de", answers=(1,))], CHAIN) == (
        f"{literals('de').instruction}\n\nFrage: Which?\nA. x\nB. y\nAntwort: B\n\nFrage: Which?\nA. x\nB. y\n"
        "Denken Sie Schritt für Schritt nach und schreiben Sie dann „Antwort:“ und den Buchstaben.\n"
    )
    english = prompt(question("de"), [], replace(CHAIN, instruction="english"))
    assert english.endswith('\nThink step by step, then write "Antwort:" and the letter.\n')


def test_of_several_right_answers_every_set_of_letters_is_a_choice() -> None:
    made = document(question("bg", options=("x", "y", "z"), answers=(2, 0)), [], LETTER, several=True)
    assert made is not None
    assert made["choices"] == ["А\n", "Б\n", "В\n", "А, Б\n", "А, В\n", "Б, В\n", "А, Б, В\n"]
    assert made["choices"][made["gold"]] == "А, В\n"
    assert made["prompt"].startswith(literals("bg").instruction_several)
    assert len(subsets(5)) == 31


def test_the_gold_of_a_written_answer_is_its_letters_as_listed() -> None:
    asked = question("he", options=("x", "y", "z"), answers=(0, 2))
    made = document(asked, [asked], PROTOCOLS["generate"], several=True)
    assert made is not None
    assert (made["gold"], made["choices"], made["answers"]) == ("א, ג", [], [0, 2])
    assert "\nתשובה: א, ג\n\n" in made["prompt"]


def test_the_papers_form_is_a_dialogue_with_the_answer_in_brackets() -> None:
    asked = question("ru", options=("да", "нет"), answers=(1,))
    says = literals("ru").instruction
    block = f"User:{says}\nВопрос: Which?\nВарианты:\n(A) да\n(B) нет\nAssistant:"
    assert prompt(asked, [asked], PAPER) == f"{block}Правильный ответ: (B).\n{block}"
    arabic = prompt(question("ar"), [], PAPER)
    assert "\n(أ) x\n(ب) y\nAssistant:" in arabic


def test_the_paper_counts_the_first_of_several_right_answers() -> None:
    made = document(question(options=("x", "y", "z"), answers=(1, 2)), [], PAPER)
    assert made is not None
    assert (made["gold"], made["answers"]) == ("B", [1])


def test_examples_are_added_while_the_prompt_stays_under_the_cap() -> None:
    short, long = question(number=1), question(asked="W" * 500, number=2)
    bare = len(prompt(question(), [], LETTER))
    both = len(prompt(question(), [short, short], LETTER))
    capped = replace(LETTER, most_characters=both + 1)
    assert prompt(question(), [short, long, short], capped) == prompt(question(), [short, short], LETTER)
    assert prompt(question(), [short, short], replace(capped, most_characters=both)) == prompt(
        question(), [short], LETTER
    )
    assert prompt(question(), [long], replace(LETTER, most_characters=bare)) == prompt(question(), [], LETTER)
    assert document(question(), [], replace(LETTER, most_characters=bare - 1)) is None


def test_examples_are_never_the_question_or_its_translation_and_the_same_for_an_exam() -> None:
    pool = [question(number=i) for i in range(9)]
    three = Protocol(shots=3)
    for asked in pool:
        drawn = draw([*pool, replace(asked, id="translated")], asked, three)
        assert len({q.id for q in drawn}) == 3
        assert all(q.group != asked.group for q in drawn)
    elsewhere = [question(number=i) for i in (20, 21)]
    assert draw(pool, elsewhere[0], three) == draw(pool, elsewhere[1], three)
    assert draw(pool, elsewhere[0], three) != draw(pool, elsewhere[0], replace(three, seed=1))
    by_item = replace(three, shots_from_test=True)
    assert draw(pool, elsewhere[0], by_item) != draw(pool, elsewhere[1], by_item)


def test_more_options_than_letters_is_an_error_that_names_the_question() -> None:
    with pytest.raises(DataError, match=r"data/words/en\.yaml: q0 has 11 options, there are 10 letters"):
        document(question(options=tuple("abcdefghijk")), [], LETTER)


def test_braces_in_a_question_stay_text() -> None:
    text = prompt(question(asked="{answer} {0}", options=("{letter}", "}{"), context="{options}"), [], LETTER)
    assert "\n\n{options}\nQuestion: {answer} {0}\nA. {letter}\nB. }{\nAnswer:" in text
