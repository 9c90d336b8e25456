"""Scripts by the names of characters, against the script property of another library; text as letters."""

import pytest
import regex

from polyclinic.corpus.identify.letters import ANY, NAMED, SCRIPTS, _numbers, expand, letters, shares
from polyclinic.languages import all_languages

WIDER = {"Kana": "Hira"}  # our code -> a further one it takes in


def test_scripts_of_letters_are_those_of_unicode() -> None:
    numbers = _numbers()
    for number, script in enumerate(SCRIPTS[ANY + 2 :], start=ANY + 2):
        points = [p for p in range(len(numbers) - 1) if numbers[p] == number]
        pattern = regex.compile(
            rf"[\p{{Script_Extensions={script}}}\p{{Script_Extensions={WIDER.get(script, script)}}}]"
        )
        strangers = [hex(p) for p in points if not pattern.fullmatch(chr(p))]
        assert len(points) > 10
        assert len(strangers) <= len(points) * 0.05, (script, strangers[:10])


def test_every_script_of_the_table_of_languages_is_known() -> None:
    assert set().union(*(expand(row.script) for row in all_languages().values())) <= set(NAMED.values())


def test_letters_are_lower_case_with_one_space_for_all_that_is_none() -> None:
    points, _ = letters("Äb1, (c)\n—D🙂e\u0301")
    assert "".join(map(chr, points)) == " äb c d e\u0301 "


def test_a_joiner_does_not_part_a_word() -> None:
    assert len(letters("می\u200cخواهم")[0]) == len("می\u200cخواهم") + 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Паразит malarije", {"Latn": 8, "Cyrl": 7}),
        ("東京とカナ 1", {"Hani": 2, "Kana": 3}),
        ("𠮷 한국", {"Hang": 2, "Hani": 1}),
        ("12 !? \u0301", {}),
        ("", {}),
    ],
)
def test_letters_are_counted_by_script_most_first(text: str, found: dict[str, int]) -> None:
    assert list(shares(letters(text)[1]).items()) == sorted(found.items(), key=lambda i: (-i[1], i[0]))
