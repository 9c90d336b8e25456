"""Languages and experts as tables: every column in line, every direction intact, every token counted once."""

import unicodedata
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from polyclinic.errors import RecipeError, UnknownLanguageError
from polyclinic.families import Family, Preset, as_yaml, balance, load_preset, preset_names
from polyclinic.languages import all_languages, language
from polyclinic.listing import (
    COLUMNS,
    END,
    ISOLATE,
    Text,
    beside,
    burden,
    burden_lines,
    experts,
    lines,
    recomputed,
    rows,
)

BALANCED = load_preset("balanced")
# A preset of three experts and text by hand: 6 of 8 tokens are English, Swedish stands beside Danish.
HAND = Preset("hand", "", (Family("West", ("en", "de")), Family("North", ("da",)), Family("East", ("zh",))))
TEXT = Text("tokens", {"da": 1, "en": 6, "sv": 1, "de": 0})
texts = st.builds(
    Text,
    st.sampled_from(["tokens", "characters"]),
    st.dictionaries(st.sampled_from(sorted(all_languages())), st.integers(0, 10**9), min_size=1, max_size=30).filter(
        lambda amounts: any(amounts.values())
    ),
)
presets = st.sampled_from(preset_names()).map(load_preset)


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
    found = rows(load_preset(preset), [])
    listed = [code for family in load_preset(preset).families for code in family.languages]
    assert [row["code"] for row in found] == listed


def test_a_row_holds_what_the_table_and_the_preset_say() -> None:
    preset = load_preset("balanced")
    for row in rows(BALANCED, list(all_languages())):
        known, expert = language(row["code"]), preset.expert_of(row["code"])
        assert (row["language"], row["native name"], row["script"]) == (known.name, known.native_name, known.script)
        assert (row["direction"], row["family"]) == (known.direction, known.lineage[0])
        assert row["expert"] == f"{expert} {preset.families[expert].name}"
        assert row["lineage"] == list(known.lineage)
        assert row["placed"] == preset.explain(row["code"])


def test_codes_keep_their_order_and_aliases_become_codes() -> None:
    assert [row["code"] for row in rows(load_preset("apollo"), ["zho", "ar", "pt-BR"])] == ["zh", "ar", "pt"]


def wide_or_narrow(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_every_column_begins_at_the_same_place_on_the_screen() -> None:
    found = rows(BALANCED, list(all_languages()))
    heading, *table = lines(BALANCED, found)[: len(found) + 1]
    expected = begins(heading, COLUMNS, cell_len)
    for row, line in zip(found, table, strict=True):
        assert begins(line, [str(row[c]) for c in COLUMNS], cell_len) == expected


def test_columns_stay_in_line_beside_wide_characters_by_the_widths_of_unicode() -> None:
    found = rows(BALANCED, ["zh", "ja", "ko", "yue", "en", "ru"])
    heading, *table = lines(BALANCED, found)[: len(found) + 1]
    for row, line in zip(found, table, strict=True):
        cells = [str(row[c]) for c in COLUMNS]
        assert begins(line, cells, wide_or_narrow) == begins(heading, COLUMNS, wide_or_narrow)


def test_every_right_to_left_name_is_isolated_and_no_isolate_stays_open() -> None:
    codes = [code for code, row in all_languages().items() if row.direction == "rtl"]
    assert len(codes) > 5
    for code, line in zip(codes, lines(BALANCED, rows(BALANCED, codes))[1:], strict=False):
        assert f"{ISOLATE}{language(code).native_name}{END}" in line
        depth = 0
        for char in line:
            depth += (char == ISOLATE) - (char == END)
            assert depth in (0, 1)
            assert depth == 1 or unicodedata.bidirectional(char) not in ("R", "AL")
        assert depth == 0


def test_an_unlisted_language_says_why_it_is_placed_there_and_the_note_comes_last() -> None:
    preset = load_preset("apollo")
    text = lines(preset, rows(preset, ["oc", "en"]))
    assert f"oc: {preset.explain('oc')}" in text
    assert not [line for line in text if line.startswith("en:")]
    assert text[-1] == f"apollo: {preset.note}"


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UnknownLanguageError):
        rows(BALANCED, ["xq"])


# What each expert carries


def test_an_expert_carries_the_text_of_its_languages_and_unlisted_ones_by_lineage() -> None:
    found = experts(HAND, TEXT)
    assert [(row["expert"], row["family"], row["tokens"]) for row in found] == [
        (0, "West", 6),
        (1, "North", 2),
        (2, "East", 0),
    ]
    assert [row["share"] for row in found] == [0.75, 0.25, 0.0]
    assert [row["times mean"] for row in found] == [2.25, 0.75, 0.0]
    assert [row["languages"] for row in found] == [["en"], ["da", "sv"], []]


@settings(deadline=None, max_examples=30)
@given(presets, texts)
def test_every_amount_is_carried_once_by_the_expert_of_its_language(preset: Preset, text: Text) -> None:
    carried = dict.fromkeys(range(preset.num_experts), 0)
    for code, amount in text.amounts.items():
        carried[preset.expert_of(code)] += amount
    found = experts(preset, text)
    assert {row["expert"]: row[text.unit] for row in found} == carried
    mean = sum(text.amounts.values()) / preset.num_experts
    for row in found:
        assert row["times mean"] == pytest.approx(row[text.unit] / mean)
    assert sorted(c for row in found for c in row["languages"]) == sorted(c for c, n in text.amounts.items() if n)


@settings(deadline=None, max_examples=30)
@given(texts, st.data())
def test_recomputed_families_stay_below_the_larger_of_twice_the_mean_and_the_floor(
    text: Text, data: st.DataObject
) -> None:
    spoken = {code: amount for code, amount in text.amounts.items() if amount}
    num_experts = data.draw(st.integers(1, len(spoken)))
    preset = recomputed(text, num_experts)
    assert preset.num_experts == num_experts
    assert preset.families == balance(preset.loads, num_experts)
    found = burden(preset, text, preset)
    heaviest = max(row["times mean"] for row in found["experts"])
    floor = found["floor"]["times mean"]
    assert floor == pytest.approx(max(text.amounts.values()) * num_experts / sum(text.amounts.values()))
    assert floor * (1 - 1e-9) <= heaviest <= max(2.0, floor) * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(text=texts)
def test_a_recomputed_preset_is_a_file_that_reads_back_equal(
    text: Text, tmp_path_factory: pytest.TempPathFactory
) -> None:
    preset = recomputed(text, sum(map(bool, text.amounts.values())), "mine")
    path = tmp_path_factory.mktemp("mine") / "mine.yaml"
    path.write_text(as_yaml(preset), encoding="utf-8")
    assert load_preset(path) == preset


def test_beside_a_preset_stand_the_one_asked_for_the_recomputed_one_and_every_shipped_one() -> None:
    many = Text("tokens", {code: 1 for code in load_preset("apollo").loads} | {"sv": 7})
    shown = [row["preset"] for row in beside(BALANCED, many, BALANCED)]
    assert shown == ["balanced", "recomputed", *(name for name in preset_names() if name != "balanced")]
    best = recomputed(many, 3)
    assert [row["preset"] for row in beside(best, many, HAND)] == ["recomputed", "hand", *preset_names()]


def test_more_experts_than_languages_with_text_leave_the_recomputed_one_out() -> None:
    assert [row["preset"] for row in beside(HAND, TEXT, HAND)] == ["hand", "recomputed", *preset_names()]
    fewer = Text("tokens", {"en": 6, "da": 1, "de": 0})
    assert [row["preset"] for row in beside(HAND, fewer, HAND)] == ["hand", *preset_names()]


def test_the_comparison_counts_the_experts_without_text() -> None:
    found = {row["preset"]: row for row in beside(HAND, TEXT, HAND)}
    assert (found["hand"]["without text"], found["hand"]["heaviest expert"]) == (1, "0 West")
    assert found["hand"]["times mean"] == 2.25
    assert found["recomputed"]["without text"] == 0
    # One expert for English, one for Danish and Swedish; 48 of the fifty have nothing to do.
    assert found["languages"]["without text"] == 48
    assert found["languages"]["times mean"] == pytest.approx(6 / (8 / 50))


def test_the_lines_say_who_is_heaviest_what_bounds_it_and_in_which_unit() -> None:
    text = burden_lines(HAND, burden(HAND, TEXT, HAND))
    assert text[0].split() == ["expert", "family", "tokens", "share", "times", "mean", "languages"]
    assert text[2].split() == ["1", "North", "2", "0.25", "0.75", "da", "sv*"]
    assert text[3].split() == ["2", "East", "0", "0.00", "0.00"]
    assert text[4:7] == [
        "* not listed by the preset",
        "heaviest expert carries 2.25 x the mean (0 West)",
        "en alone is 2.25 x the mean: no families can be below",
    ]
    assert text[-1].startswith("Tokens of ")
    counted = Text("characters", dict.fromkeys(("en", "da", "zh"), 4))
    other = burden_lines(HAND, burden(HAND, counted, HAND))
    assert "characters" in other[0]
    assert other[-1].startswith("Characters of ")
    assert not [line for line in other if "alone" in line or line.startswith("*")]


def test_numbers_stand_to_the_right_with_their_thousands_apart() -> None:
    big = Text("tokens", {"en": 1234567, "da": 8})
    heading, *table = burden_lines(HAND, burden(HAND, big, HAND))[:4]
    ends = [line.index(figure) + len(figure) for line, figure in zip(table, ("1,234,567", " 8 ", " 0 "), strict=True)]
    assert [ends[0], ends[1] - 1, ends[2] - 1] == [heading.index("tokens") + len("tokens")] * 3


def test_more_experts_than_languages_with_text_are_refused() -> None:
    with pytest.raises(RecipeError, match="4 experts for 3 languages"):
        recomputed(TEXT, 4)


def test_with_a_text_the_table_has_its_amounts_and_the_languages_no_family_lists() -> None:
    found = rows(HAND, [], TEXT)
    assert [(row["code"], row["tokens"]) for row in found] == [("en", 6), ("de", 0), ("da", 1), ("zh", 0), ("sv", 1)]
    text = lines(HAND, found)
    assert text[0].rstrip().endswith("tokens")
    assert f"sv: {HAND.explain('sv')}" in text
    assert [row["code"] for row in rows(HAND, ["zh"], TEXT)] == ["zh"]
    assert "tokens" not in rows(HAND, [])[0]
