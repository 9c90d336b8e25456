"""Presets and the placement of languages: one expert each, for a reason that can be told."""

import runpy
from collections.abc import Mapping
from math import fsum
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.errors import RecipeError, UnknownLanguageError
from polyclinic.families import Family, Preset, as_yaml, balance, fifty, load_preset, majors, preset_names
from polyclinic.languages import all_languages, language

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src/polyclinic/data/families"

# Table 3 of arXiv 2410.10626, typed from reference/paper.md section 5, ids 0 to 6.
PAPER_GROUPS = (
    "zh",
    "ko ja ne",
    "th vi lo",
    "mg ceb su ilo doi",
    "en de pt es fr ru it hi hr gl cs co lb la uk bs bg eo mai sr sq sk da sa no gn gd",
    "ar ckb mt he",
    "ln bm sw nso ig rw ha",
)
all_codes = st.sampled_from(sorted(all_languages()))
presets = st.sampled_from(preset_names()).map(load_preset)
some_loads = st.dictionaries(all_codes, st.floats(0, 1e6), min_size=1, max_size=40)


def preset_of(*groups: str, loads: Mapping[str, float] | None = None, unrelated: str = "") -> Preset:
    """Return a preset with families named 0, 1, ... of codes joined by blanks."""
    families = tuple(Family(str(i), tuple(group.split())) for i, group in enumerate(groups))
    return Preset("test", "", families, loads=loads or {}, unrelated=unrelated)


def refusal(tmp_path: Path, text: str) -> str:
    """Return the one-line message with which a preset file is refused."""
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((RecipeError, UnknownLanguageError)) as caught:
        load_preset(path)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Shipped presets


def test_five_presets_are_shipped_under_their_own_names() -> None:
    assert preset_names() == ("apollo", "apollo12", "balanced", "glottolog", "languages", "two")
    assert all(load_preset(name).name == name for name in preset_names())
    assert all(load_preset(name).note and load_preset(name).source for name in preset_names())


def test_apollo_lists_the_papers_groups_in_the_papers_order() -> None:
    groups = tuple(" ".join(family.languages) for family in load_preset("apollo").families)
    assert groups == PAPER_GROUPS


def test_apollo_keeps_the_papers_mistakes_and_names_them() -> None:
    apollo = load_preset("apollo")
    assert apollo.expert_of("ne") == apollo.expert_of("ko") == apollo.expert_of("ja") == 1
    assert not apollo.follows_lineage
    for code in ("ne", "doi", "ckb", "gn", "eo", "th", "lo", "ha", "bm"):
        assert f" {code} " in apollo.note or f"{code} (" in apollo.note, code


def test_apollo12_numbers_the_majors_as_the_papers_labels_do() -> None:
    codes = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh"]
    assert list(majors()) == codes
    assert [load_preset("apollo12").expert_of(code) for code in codes] == list(range(12))


def test_the_fifty_are_the_papers_and_start_with_the_majors() -> None:
    assert sorted(fifty()) == sorted(" ".join(PAPER_GROUPS).split())
    assert fifty()[:12] == majors()


def test_every_preset_of_the_fifty_lists_each_of_them_once() -> None:
    for name in ("apollo", "balanced", "glottolog", "languages", "two"):
        listed = [code for family in load_preset(name).families for code in family.languages]
        assert sorted(listed) == sorted(fifty()), name


def test_glottolog_groups_are_top_level_families_with_small_ones_together() -> None:
    preset = load_preset("glottolog")
    *own, others = preset.families
    for family in own:
        assert {language(code).family for code in family.languages} == {family.name}
        assert len(family.languages) > 1 or family.languages[0] in majors()
    tops = [language(code).family for code in others.languages]
    assert len(tops) == len(set(tops))
    assert not set(others.languages) & set(majors())
    assert preset.family_of("tr") == others


def test_norwegian_survives_any_yaml_reader_since_every_code_is_quoted() -> None:
    for path in SHIPPED.glob("*.yaml"):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        codes = [
            *data["loads"],
            *(code for entry in data["families"] for code in entry["languages"]),
        ]
        assert all(isinstance(code, str) for code in codes), path.name


def test_shipped_loads_are_the_papers_and_the_same_in_every_preset() -> None:
    loads = load_preset("balanced").loads
    assert fsum(loads[code] for code in majors()) == pytest.approx(2474.6)
    minor = 2993 * 1585 / 4 / 1e6
    assert all(load == pytest.approx(minor, abs=1e-3) for c, load in loads.items() if c not in majors())
    for name in preset_names():
        assert load_preset(name).loads.items() <= loads.items(), name


def test_computed_presets_are_what_the_script_computes() -> None:
    script = runpy.run_path(str(ROOT / "scripts/build_families.py"))
    for name in ("balanced", "glottolog", "languages", "two"):
        shipped = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        assert shipped == script["as_yaml"](script[name]()), name


def test_the_balanced_file_equals_what_the_rule_gives_for_its_own_loads() -> None:
    preset = load_preset("balanced")
    assert preset.num_experts == 7
    assert preset.families == balance(preset.loads, 7)


# Placement


@given(presets, all_codes)
def test_every_known_language_has_exactly_one_expert_in_each_preset(preset: Preset, code: str) -> None:
    expert = preset.expert_of(code)
    assert 0 <= expert < preset.num_experts
    assert preset.family_of(code) is preset.families[expert]
    listed_by = [i for i, family in enumerate(preset.families) if code in family.languages]
    assert listed_by in ([], [expert])
    assert (preset.explain(code) == "listed") == bool(listed_by)


def test_an_alias_has_the_expert_of_its_language() -> None:
    assert load_preset("apollo").expert_of("nb-NO") == load_preset("apollo").expert_of("no") == 4


def test_swedish_goes_with_danish_and_norwegian() -> None:
    preset = preset_of("en de", "hi", "da no", "zh")
    assert preset.expert_of("sv") == 2
    assert preset.explain("sv") == "placed by lineage beside da, no (North Germanic)"


def test_a_nearer_relative_wins_over_more_distant_ones() -> None:
    assert preset_of("da", "en de lb", "zh").expert_of("sv") == 0


def test_equally_near_families_are_decided_by_members_and_then_by_number() -> None:
    assert preset_of("es", "fr it").expert_of("ro") == 1
    assert preset_of("es", "fr").expert_of("ro") == 0


def test_a_language_related_to_none_goes_where_the_load_is_lightest_and_is_told_so() -> None:
    preset = preset_of("en", "zh ja", loads={"en": 9.0, "zh": 1.0, "ja": 2.0})
    assert preset.expert_of("tr") == 1
    assert preset.explain("tr") == 'related to none listed; placed in "1", which has the lightest load'


def test_without_loads_a_language_related_to_none_goes_to_the_fewest_languages() -> None:
    preset = preset_of("en fr", "zh", "ja")
    assert preset.expert_of("tr") == 1
    assert "fewest languages" in preset.explain("tr")


def test_a_family_may_be_named_for_languages_related_to_none() -> None:
    preset = preset_of("en", "zh ja", unrelated="1")
    assert preset.expert_of("tr") == 1
    assert "takes such languages" in preset.explain("tr")


def test_an_unknown_language_has_no_expert() -> None:
    with pytest.raises(UnknownLanguageError):
        load_preset("apollo").expert_of("xq")


def test_follows_lineage_says_whether_families_keep_within_one_top_level_family() -> None:
    assert preset_of("en hi", "zh").follows_lineage
    assert not preset_of("en zh").follows_lineage


# Balancing


@given(some_loads, st.data())
def test_balance_partitions_its_input_into_exactly_as_many_groups(loads: dict[str, float], data: st.DataObject) -> None:
    num_experts = data.draw(st.integers(1, len(loads)))
    families = balance(loads, num_experts)
    assert len(families) == num_experts
    assert sorted(c for family in families for c in family.languages) == sorted(loads)
    assert all(family.languages for family in families)
    assert len({family.name for family in families}) == num_experts


@given(some_loads, st.randoms(use_true_random=False), st.data())
def test_balance_does_not_depend_on_the_order_of_its_input(
    loads: dict[str, float], random: Random, data: st.DataObject
) -> None:
    num_experts = data.draw(st.integers(1, len(loads)))
    shuffled = list(loads.items())
    random.shuffle(shuffled)
    assert balance(dict(shuffled), num_experts) == balance(loads, num_experts)


@given(some_loads, st.data())
def test_a_group_above_the_mean_is_one_language_or_was_merged_from_the_lightest(
    loads: dict[str, float], data: st.DataObject
) -> None:
    num_experts = data.draw(st.integers(1, len(loads)))
    weights = [fsum(loads[c] for c in f.languages) for f in balance(loads, num_experts)]
    assert weights == sorted(weights, reverse=True)
    if num_experts > 1:
        bound = max(max(loads.values()), 2 * fsum(loads.values()) / num_experts)
        assert weights[0] <= bound * (1 + 1e-9)


def test_balance_splits_a_heavy_family_past_the_nodes_all_its_languages_share() -> None:
    families = balance({"da": 3.0, "no": 3.0, "en": 10.0, "zh": 1.0, "ja": 1.0}, 3)
    assert [(f.name, f.languages) for f in families] == [
        ("West Germanic", ("en",)),
        ("North Germanic", ("da", "no")),
        ("Japonic + Sino-Tibetan", ("ja", "zh")),
    ]


def test_rounding_in_a_sum_cannot_split_a_family_that_weighs_just_the_mean() -> None:
    families = balance({"lo": 0.1, "shn": 0.2, "th": 0.3, "ja": 0.6}, 2)
    assert [f.name for f in families] == ["Japonic", "Tai-Kadai"]


def test_balance_keeps_a_light_family_whole_when_experts_suffice() -> None:
    families = balance({"da": 1.0, "en": 1.0, "zh": 2.0, "ja": 2.0}, 3)
    assert [f.languages for f in families] == [("da", "en"), ("ja",), ("zh",)]


def test_balance_splits_on_while_families_are_fewer_than_experts() -> None:
    families = balance({"da": 1.0, "en": 1.0, "hi": 1.0, "ja": 50.0}, 3)
    assert [f.languages for f in families] == [("ja",), ("da", "en"), ("hi",)]


def test_balance_with_one_expert_per_language_gives_one_family_each() -> None:
    assert len(balance(dict.fromkeys(fifty(), 1.0), 50)) == 50


def test_a_long_name_is_shortened_to_its_heaviest_clade() -> None:
    loads = {"ko": 4.0, "ja": 1.0, "th": 1.0, "vi": 1.0, "mg": 1.0}
    assert balance(loads, 1)[0].name == "Koreanic and 4 more"


@pytest.mark.parametrize("num_experts", [0, 3])
def test_balance_refuses_more_experts_than_languages_and_none(num_experts: int) -> None:
    with pytest.raises(RecipeError, match=f"{num_experts} experts for 2 languages"):
        balance({"en": 1.0, "de": 1.0}, num_experts)


def test_balance_refuses_two_codes_of_one_language() -> None:
    with pytest.raises(RecipeError, match="no stands twice"):
        balance({"no": 1.0, "nb": 1.0}, 1)


# A user's file


def test_a_users_file_is_read_with_the_same_form(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        'name: mine\nfamilies:\n  - {name: North, languages: ["nob", "da"]}\n'
        '  - {name: South, languages: ["pt-BR"]}\nloads: {"no": 1, "da": 2.5, "pt": 0}\n'
        "unrelated: South\n",
        encoding="utf-8",
    )
    preset = load_preset(str(path))
    assert preset.families == (Family("North", ("no", "da")), Family("South", ("pt",)))
    assert preset.load_of(preset.families[0]) == 3.5
    assert preset.expert_of("zh") == 1


def test_a_name_that_is_neither_preset_nor_file_is_answered_with_the_nearest_preset() -> None:
    with pytest.raises(RecipeError, match="did you mean balanced"):
        load_preset("ballanced")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nfamilies: [{name: A, languages: [en]}]\nfamilys: 1", "did you mean families"),
        ("name: a\nfamilies: [{name: A, langs: [en]}]", "unknown key 'langs'"),
        ("families: [{name: A, languages: [en]}]", "name is missing"),
        ("name: a", "families is missing"),
        ("name: 3\nfamilies: [{name: A, languages: [en]}]", "name must be text"),
        ("name: a\nfamilies: []", "filled list"),
        ("name: a\nfamilies: [en]", "a mapping was expected, not 'en'"),
        ("name: a\nfamilies: [{name: A, languages: []}]", "family 'A': no language"),
        ("name: a\nfamilies: [{name: A, languages: en}]", "family 'A': no language"),
        ("name: a\nfamilies: [{name: A, languages: [en, en]}]", "en stands in 'A' and in 'A'"),
        (
            "name: a\nfamilies: [{name: A, languages: ['no']}, {name: B, languages: [nb]}]",
            "no stands in 'A' and in 'B'",
        ),
        (
            "name: a\nfamilies: [{name: A, languages: [en]}, {name: A, languages: [de]}]",
            "two families are named 'A'",
        ),
        ("name: a\nfamilies: [{name: A, languages: [xq]}]", "unknown language 'xq'"),
        ("name: a\nfamilies: [{name: A, languages: [false]}]", 'Norwegian is "no"'),
        ("name: a\nfamilies: [{name: A, languages: [en]}]\nloads: {en: -1}", "en: -1 is no load"),
        ("name: a\nfamilies: [{name: A, languages: [en]}]\nloads: {en: true}", "True is no load"),
        (
            "name: a\nfamilies: [{name: A, languages: [en]}]\nloads: {de: 1}",
            "disagree about de, en",
        ),
        (
            "name: a\nfamilies: [{name: A, languages: [en]}]\nloads: [en]",
            "a mapping of code to load",
        ),
        ("name: a\nfamilies: [{name: A, languages: [en]}]\nunrelated: B", "no family 'B'"),
        ("name: a\nname: b\nfamilies: [{name: A, languages: [en]}]", "stands twice"),
        ("- en", "mapping"),
        ("name: [", "mine.yaml"),
    ],
)
def test_a_faulty_file_is_refused_with_one_line_that_names_the_fault(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


# A language more, and a file written by us


@pytest.mark.parametrize(("code", "name"), [("ro", "Romanian"), ("tr", "Turkish"), ("qu", "Quechua")])
def test_a_language_is_added_by_naming_it_in_a_preset_file(code: str, name: str, tmp_path: Path) -> None:
    shipped = [load_preset(preset) for preset in preset_names()]
    assert not any(code in family.languages for preset in shipped for family in preset.families)
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\nfamilies:\n  - {{name: Old, languages: [en, zh]}}\n  - {{name: New, languages: [{code}]}}\n",
        encoding="utf-8",
    )
    preset = load_preset(path)
    assert language(code).name == name
    assert (preset.expert_of(code), preset.explain(code)) == (1, "listed")
    assert balance({"en": 1.0, "zh": 1.0, code: 9.0}, 2)[0].languages == (code,)


def test_an_unlisted_language_of_such_a_file_finds_its_expert_by_lineage(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nfamilies: [{name: A, languages: [en, zh]}, {name: B, languages: [ro]}]\n", "utf-8")
    preset = load_preset(path)
    assert preset.expert_of("fr") == 1
    assert preset.explain("fr").startswith("placed by lineage beside ro (")


@pytest.mark.parametrize("name", preset_names())
def test_a_shipped_preset_written_as_yaml_reads_back_equal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(as_yaml(load_preset(name)), encoding="utf-8")
    assert load_preset(path) == load_preset(name)


@settings(deadline=None, max_examples=100)
@given(loads=some_loads, name=st.text(min_size=1, max_size=9), data=st.data())
def test_what_as_yaml_returns_reads_back_equal_and_what_it_cannot_hold_it_refuses(
    loads: dict[str, float], name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    families = balance(loads, data.draw(st.integers(1, len(loads))))
    home = data.draw(st.sampled_from(["", families[-1].name]))
    preset = Preset(name, data.draw(st.sampled_from(["", "a note: of - words # here"])), families, name, loads, home)
    try:
        text = as_yaml(preset)
    except RecipeError:
        assert not (name.isascii() and name.isprintable())
        return
    path = tmp_path_factory.mktemp("written") / "mine.yaml"
    path.write_bytes(text.encode())
    assert load_preset(path) == preset


@pytest.mark.parametrize("note", ["two\nlines", " begins", "a  gap where a line ends " * 9, "\x00", "\u2028"])
def test_a_note_that_folding_would_change_is_refused_rather_than_changed(note: str) -> None:
    with pytest.raises(RecipeError):
        as_yaml(Preset("mine", note, (Family("A", ("en",)),)))


def test_norwegian_is_quoted_in_what_as_yaml_returns() -> None:
    text = as_yaml(preset_of("no da", loads={"no": 1.0, "da": 2.0}))
    assert yaml.safe_load(text)["families"][0]["languages"] == ["no", "da"]
    assert set(yaml.safe_load(text)["loads"]) == {"no", "da"}
