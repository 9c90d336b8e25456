"""Other forms of a question: alike in what they ask, drawn the same each time, as different as they say."""

import itertools
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus import starter
from polyclinic.errors import UsageError
from polyclinic.evaluate.literals import literals
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.evaluate.typos import keyboards, script_of, with_typos, written_units
from polyclinic.evaluate.variants import KINDS, variants
from polyclinic.families import fifty
from polyclinic.records import Question

LETTER = PROTOCOLS["letter"]
CODES = sorted(fifty())


def sentence(code: str) -> str:
    return next(turn.content for d in starter.documents() if d.language == code for turn in d.turns)[:300]


def question(code: str = "en", asked: str | None = None, context: str = "") -> Question:
    asked = sentence(code) if asked is None else asked
    return Question("q", code, "s", "l", "g", "test", asked, ("Aspirin 100 mg", "ماء", "水"), (0,), context)


def scripts(text: str) -> set[str]:
    return {script_of(unit) for unit in written_units(text) if unit[0].isalpha()}


def changed(one: str, other: str) -> int:
    first, second = list(written_units(one)), list(written_units(other))
    assert len(first) == len(second)
    return sum(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("code", CODES)
def test_level_0_changes_nothing_and_each_level_changes_more(code: str) -> None:
    text = sentence(code)
    levels = [with_typos(text, level, "1") for level in range(5)]
    assert levels[0] == text
    counts = [changed(text, mistyped) for mistyped in levels]
    assert counts == sorted(set(counts)), counts
    assert counts[4] >= 4
    for milder, stronger in itertools.pairwise(levels):  # the slips of a level are among those of the next
        kept = [m != t for m, t in zip(written_units(milder), written_units(text), strict=True)]
        same = [m == s for m, s in zip(written_units(milder), written_units(stronger), strict=True)]
        assert all(was_same for slipped, was_same in zip(kept, same, strict=True) if slipped)


@pytest.mark.parametrize("code", CODES)
def test_slips_stay_in_the_script_and_leave_signs_and_digits(code: str) -> None:
    text = sentence(code)
    for seed in "123":
        mistyped = with_typos(text, 4, seed)
        assert scripts(mistyped) == scripts(text)
        letters = ("L", "M")
        others = [[c for c in one if unicodedata.category(c)[0] not in letters] for one in (text, mistyped)]
        assert others[0] == others[1]


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=80), level=st.integers(0, 4), seed=st.text(max_size=3))
def test_any_text_slips_without_fault_and_the_same_each_time(text: str, level: int, seed: str) -> None:
    mistyped = with_typos(text, level, seed)
    assert mistyped == with_typos(text, level, seed)
    assert level or mistyped == text


def test_another_seed_and_another_item_slip_elsewhere() -> None:
    text = sentence("en")
    assert len({with_typos(text, 2, str(seed)) for seed in range(9)}) > 5
    asked = question()
    other = replace(asked, id="other")
    assert variants(asked, "typo", 5, 0)[2].question.question != variants(other, "typo", 5, 0)[2].question.question
    assert variants(asked, "typo", 5, 0)[2] != variants(asked, "typo", 5, 1)[2]


@pytest.mark.parametrize(
    "text", ["发烧的孩子应该先吃什么药", "子供の熱にはどの薬を使いますか", "열이 나는 아이에게는 어떤 약을 쓸까"]
)
def test_characters_that_are_words_are_only_swapped(text: str) -> None:
    for level in range(5):
        mistyped = with_typos(text, level, "1")
        assert sorted(mistyped) == sorted(text)
        assert (mistyped == text) == (level == 0)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("the doctor gives water to the child", {"neighbour", "swap"}),
        ("врач даёт ребёнку воду и чай", {"neighbour", "swap", "mark"}),
        ("bác sĩ cho trẻ uống nước ấm", {"neighbour", "swap", "mark"}),
        ("चिकित्सक बच्चे को पानी देता है", {"swap", "mark"}),
        ("يُعْطِي الطَّبِيبُ الطِّفْلَ مَاءً", {"swap", "mark"}),
        ("הָרוֹפֵא נוֹתֵן לַיֶּלֶד מַיִם", {"swap", "mark"}),
        ("หมอให้น้ำแก่เด็ก", {"swap", "mark"}),
    ],
)
def test_each_script_has_its_own_slips(text: str, kinds: set[str]) -> None:
    seen = set()
    before = list(written_units(text))
    for seed in range(60):
        after = list(written_units(with_typos(text, 1, str(seed))))
        places = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        if len(places) > 1:
            assert [after[i] for i in places] == [before[i] for i in places[::-1]]
            seen.add("swap")
        else:
            old, new = before[places[0]], after[places[0]]
            seen.add("neighbour" if new[0] in keyboards().get(old[0], ()) else "mark")
    assert seen == kinds


@pytest.mark.parametrize("amount", ["5 mg/kg", "B12", "IL-6", "0.5 ml", "x2"])
def test_amounts_are_never_mistyped(amount: str) -> None:
    text = f"give {amount} water now"
    for seed in range(40):
        assert amount in with_typos(text, 4, str(seed))


def test_neighbours_on_the_keyboard_are_mutual_and_capitals_stay() -> None:
    assert all(key in keyboards()[other] for key, near in keyboards().items() for other in near)
    assert (keyboards()["q"], keyboards()["s"], keyboards()["й"]) == (["w"], ["a", "d"], ["ц"])
    for seed in range(40):
        mistyped = with_typos("QWERTY", 1, str(seed))
        assert mistyped.isupper()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ["ar", "en", "zh"])
def test_the_first_variant_is_the_plain_one_and_no_two_prompts_are_alike(kind: str, code: str) -> None:
    asked = question(code, context=sentence(code)[:80])
    english = replace(LETTER, instruction="english") if kind == "paraphrase" else LETTER
    made = variants(asked, kind, 5, 0)  # type: ignore[arg-type]
    documents = [variant.document([], english) for variant in made]
    plain = documents[0]
    assert plain is not None
    assert made[0].question == asked
    assert plain["prompt"].startswith(literals("en" if kind == "paraphrase" else code).instruction)
    assert [variant.number for variant in made] == [0, 1, 2, 3, 4]
    assert len({d["prompt"] for d in documents if d}) == 5
    for document in documents:
        assert document is not None
        assert {**document, "prompt": ""} == {**plain, "prompt": ""}
        assert all(option in document["prompt"] for option in asked.options)
    assert variants(asked, kind, 2, 0) == made[:2]  # type: ignore[arg-type]


def test_typos_are_in_the_question_and_its_context_alone() -> None:
    asked = question(context="The child has a high fever and drinks nothing.")
    mistyped = variants(asked, "typo", 5, 0)[4].question
    assert mistyped.question != asked.question
    assert mistyped.context != asked.context
    assert replace(mistyped, question=asked.question, context=asked.context) == asked


def test_the_other_wordings_speak_of_one_right_option_and_are_not_used_for_several() -> None:
    assert [v.told for v in variants(question(), "paraphrase", 5, 0, several=True)] == [
        literals("en").instruction_several
    ]


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown kind 'mood'; there are layout, paraphrase, typo"):
        variants(question(), "mood", 5, 0)  # type: ignore[arg-type]
