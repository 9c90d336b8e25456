"""The table of languages: every column in line, every direction intact."""

import unicodedata
from collections.abc import Callable, Sequence

import pytest
from rich.cells import cell_len

from polyclinic.errors import RecipeError, UnknownLanguageError
from polyclinic.families import load_preset, preset_names
from polyclinic.languages import all_languages, language
from polyclinic.listing import COLUMNS, END, ISOLATE, lines, rows


def bare(text: str) -> str:
    """Return what takes room on the screen."""
    return text.replace(ISOLATE, "").replace(END, "")


def begins(line: str, cells: Sequence[str], width: Callable[[str], int]) -> list[int]:
    """Return where on the screen each cell of a line begins."""
    line, at, out = bare(line), 0, []
    for cell in cells:
        at = line.index(cell, at)
        out.append(width(line[:at]))
        at += len(cell)
    return out


@pytest.mark.parametrize("preset", preset_names())
def test_without_codes_every_language_of_the_preset_stands_there_once(preset: str) -> None:
    found = rows(preset, [])
    listed = [code for family in load_preset(preset).families for code in family.languages]
    assert [row["code"] for row in found] == listed


def test_a_row_holds_what_the_table_and_the_preset_say() -> None:
    preset = load_preset("balanced")
    for row in rows("balanced", list(all_languages())):
        known, expert = language(row["code"]), preset.expert_of(row["code"])
        assert (row["language"], row["native name"], row["script"]) == (known.name, known.native_name, known.script)
        assert (row["direction"], row["family"]) == (known.direction, known.lineage[0])
        assert row["expert"] == f"{expert} {preset.families[expert].name}"
        assert row["lineage"] == list(known.lineage)
        assert row["placed"] == preset.explain(row["code"])


def test_codes_keep_their_order_and_aliases_become_codes() -> None:
    assert [row["code"] for row in rows("apollo", ["zho", "ar", "pt-BR"])] == ["zh", "ar", "pt"]


def wide_or_narrow(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_every_column_begins_at_the_same_place_on_the_screen() -> None:
    found = rows("balanced", list(all_languages()))
    heading, *table = lines("balanced", found)[: len(found) + 1]
    expected = begins(heading, COLUMNS, cell_len)
    for row, line in zip(found, table, strict=True):
        assert begins(line, [str(row[c]) for c in COLUMNS], cell_len) == expected


def test_columns_stay_in_line_beside_wide_characters_by_the_widths_of_unicode() -> None:
    found = rows("balanced", ["zh", "ja", "ko", "yue", "en", "ru"])
    heading, *table = lines("balanced", found)[: len(found) + 1]
    for row, line in zip(found, table, strict=True):
        cells = [str(row[c]) for c in COLUMNS]
        assert begins(line, cells, wide_or_narrow) == begins(heading, COLUMNS, wide_or_narrow)


def test_every_right_to_left_name_is_isolated_and_no_isolate_stays_open() -> None:
    codes = [code for code, row in all_languages().items() if row.direction == "rtl"]
    assert len(codes) > 5
    for code, line in zip(codes, lines("balanced", rows("balanced", codes))[1:], strict=False):
        assert f"{ISOLATE}{language(code).native_name}{END}" in line
        depth = 0
        for char in line:
            depth += (char == ISOLATE) - (char == END)
            assert depth in (0, 1)
            assert depth == 1 or unicodedata.bidirectional(char) not in ("R", "AL")
        assert depth == 0


def test_an_unlisted_language_says_why_it_is_placed_there_and_the_note_comes_last() -> None:
    preset = load_preset("apollo")
    text = lines("apollo", rows("apollo", ["oc", "en"]))
    assert f"oc: {preset.explain('oc')}" in text
    assert not [line for line in text if line.startswith("en:")]
    assert text[-1] == f"apollo: {preset.note}"


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UnknownLanguageError):
        rows("balanced", ["xq"])
    with pytest.raises(RecipeError):
        rows("balancde", [])
