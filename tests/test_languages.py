"""The table of languages: whole, consistent, and clear about what it does not know."""

import os
import re
import runpy
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyclinic.errors import DataError, UnknownLanguageError
from polyclinic.languages import all_languages, language

ROOT = Path(__file__).parents[1]
known = st.sampled_from(sorted(all_languages()))


def test_at_least_220_languages_are_known() -> None:
    assert len(all_languages()) >= 220


def test_no_language_lacks_a_name_native_name_script_family_or_direction() -> None:
    for row in all_languages().values():
        assert all((row.name, row.native_name, row.glottocode, row.lineage, *row.lineage))
        assert len(row.iso639_3) == 3
        assert re.fullmatch("[A-Z][a-z]{3}", row.script)
        assert row.direction in {"ltr", "rtl"}


def test_no_code_or_alias_names_two_languages() -> None:
    spoken_for = [c for row in all_languages().values() for c in (row.code, *row.aliases)]
    assert len(spoken_for) == len(set(spoken_for))
    assert all(code == code.lower() for code in spoken_for)


@given(known, st.data())
def test_every_alias_in_any_case_and_with_any_region_finds_its_language(code: str, data: st.DataObject) -> None:
    row = all_languages()[code]
    alias = data.draw(st.sampled_from([row.code, row.iso639_3, *row.aliases]))
    tail = data.draw(st.sampled_from(["", "-XX", "_Latn", "-Latn-XX"]))
    assert language(alias.upper() + tail) is row
    assert language(f" {alias}{tail} ") is row


@pytest.mark.parametrize(
    ("given_code", "expected"),
    [
        ("pt-BR", "pt"),
        ("zh_Hans", "zh"),
        ("nb", "no"),
        ("nob", "no"),
        ("cmn", "zh"),
        ("zho", "zh"),
        ("arb", "ar"),
        ("ara", "ar"),
        ("swh", "sw"),
        ("nep", "ne"),
        ("mlg", "mg"),
        ("als", "sq"),
        ("grn", "gn"),
        ("dgo", "doi"),
        ("fil", "tl"),
    ],
)
def test_other_codes_in_use_are_accepted(given_code: str, expected: str) -> None:
    assert language(given_code).code == expected


def test_nynorsk_is_its_own_language() -> None:
    assert language("nn").code == "nn"


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("ne", "Indo-European"),
        ("doi", "Indo-European"),
        ("ckb", "Indo-European"),
        ("ha", "Afro-Asiatic"),
        ("bm", "Mande"),
        ("gn", "Tupian"),
        ("eo", "Artificial Language"),
        ("vi", "Austroasiatic"),
        ("th", "Tai-Kadai"),
        ("lo", "Tai-Kadai"),
        ("ko", "Koreanic"),
        ("ja", "Japonic"),
        ("eu", "Basque"),
    ],
)
def test_the_family_is_glottologs(code: str, family: str) -> None:
    assert language(code).family == family


def test_the_lineage_runs_from_the_root_to_the_nearest_group() -> None:
    lineage = language("da").lineage
    assert lineage[0] == "Indo-European"
    assert lineage.index("Germanic") < lineage.index("North Germanic")


def test_right_to_left_scripts_are_marked() -> None:
    for code in ("ar", "he", "ckb", "ur", "fa", "dv", "yi", "ps", "nqo"):
        assert language(code).direction == "rtl", code
    for code in ("en", "zh", "hi", "am", "mn", "ku"):
        assert language(code).direction == "ltr", code


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("zh", "Hans"),
        ("sr", "Cyrl"),
        ("bs", "Latn"),
        ("ckb", "Arab"),
        ("doi", "Deva"),
        ("mai", "Deva"),
        ("sa", "Deva"),
        ("ja", "Jpan"),
        ("ko", "Kore"),
        ("uz", "Latn"),
        ("yue", "Hant"),
        ("lo", "Laoo"),
    ],
)
def test_the_script_is_the_one_the_language_is_mostly_written_in(code: str, script: str) -> None:
    assert language(code).script == script


def test_native_names_are_in_the_native_script() -> None:
    latin = [r.code for r in all_languages().values() if r.script != "Latn" and r.native_name.isascii()]
    assert latin == []


def test_an_unknown_code_raises_on_one_line_with_near_codes() -> None:
    with pytest.raises(UnknownLanguageError, match=r"'xq'.*xh \(Xhosa\)") as caught:
        language("xq", where="recipe.yaml: corpus")
    assert isinstance(caught.value, DataError)
    assert str(caught.value).startswith("recipe.yaml: corpus: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("typed", ["Swedsh", "SWEDISH", "Svenska"])
def test_a_name_in_place_of_a_code_is_answered_with_the_code(typed: str) -> None:
    with pytest.raises(UnknownLanguageError, match=r"did you mean sv \(Swedish\)"):
        language(typed)


@pytest.mark.parametrize("value", [False, None, 12, ["en"]])
def test_a_value_that_is_no_string_is_refused_with_the_hint_to_quote_norwegian(
    value: object,
) -> None:
    with pytest.raises(UnknownLanguageError, match='Norwegian is "no"'):
        language(value)  # type: ignore[arg-type]


@given(st.text(max_size=8))
def test_any_text_is_a_language_or_an_unknown_language(text: str) -> None:
    with suppress(UnknownLanguageError):
        assert language(text).code in all_languages()


def test_the_shipped_table_is_what_the_script_builds(tmp_path: Path) -> None:
    pytest.importorskip("langcodes", reason="the table is built with langcodes")
    source = Path(os.environ.get("POLYCLINIC_DATA", "")) / "glottolog/languages.csv"
    if not source.is_file():
        pytest.skip("POLYCLINIC_DATA is not set")
    script = runpy.run_path(str(ROOT / "scripts/build_languages.py"))
    with source.open(encoding="utf-8", newline="") as stream:
        rows = [script["row_of"](row) for row in script["csv"].DictReader(stream)]
    script["write"](script["checked"](rows), tmp_path / "languages.csv")
    shipped = ROOT / "src/polyclinic/data/languages.csv"
    assert (tmp_path / "languages.csv").read_bytes() == shipped.read_bytes()
