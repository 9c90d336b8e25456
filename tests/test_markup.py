"""HTML pieces: text stays what it was, quantities stay whole, nothing escapes its element."""

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus import starter
from polyclinic.languages import all_languages, language
from polyclinic.markup import details, facts, figure, heat, isolate, native, number, percent, table

QUANTITIES = [
    *("5 mg/kg", "5 µg", "5 μg/ml", "100 ml", "25 kg/m²", "2 × 500 mg", "120/80", "120/80 mmHg", "120/80 mm Hg"),
    *("38-39", "38–39", "38‑39 °C", "38.5 °C", "38,5°C", "-5 °C", "−5", "±2", "≥38 °C", "< 5", "8:30"),
    *("1,000 ml", "1 000 ml", "1\u202f000 ml", "80%", "٣٨٫٥", "٨٠٪", "½ ml", "1½"),
]
AROUND = [("", ""), ("أعط ", " كل يوم."), ("תן ", ", פעם ביום."), ("(", ")"), ("ב-", " ליום"), ("كل ", "،")]


class Reader(HTMLParser):
    """Collects text, elements and what stands in each <bdi>; fails on wrong nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.isolated, self.open, self.tags = "", [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "bdi":
            self.isolated.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "bdi" in self.open:
            self.isolated[-1] += data


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_quantity_is_one_isolate_in_any_text(quantity: str) -> None:
    for before, after in AROUND:
        if before == "ב-" and not quantity[0].isdigit():
            continue  # a sign after a hyphen is none
        read = Reader(isolate(before + quantity + after))
        assert read.isolated == [quantity]
        assert read.text == before + quantity + after


@pytest.mark.parametrize(
    ("text", "isolated"),
    [
        ("في 12. ثم 13, 14", ["12", "13", "14"]),
        ("فيتامين B12 ضد COVID-19 و H2O", []),
        ("5 tuổi, 3 Löffel", ["5", "3"]),
        ("12 ملعقة و1 ملعقة", ["12", "1"]),
        ("2 لتر؛ 5-3 و 2020 100 ml", ["2", "5-3", "2020", "100 ml"]),
        ("5 mg - 10 mg", ["5 mg", "10 mg"]),
        ("8\n100 ml", ["8", "100 ml"]),
    ],
)
def test_only_what_belongs_to_a_number_is_isolated_with_it(text: str, isolated: list[str]) -> None:
    read = Reader(isolate(text))
    assert read.isolated == isolated
    assert read.text == text


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("5.,-/ °CmgKk<>&\"'٥پא%½−")))
def test_isolating_changes_no_text_and_loses_no_digit(text: str) -> None:
    read = Reader(isolate(text))
    assert read.text == text
    assert all(tag == "bdi" and attributes == {"dir": "ltr"} for tag, attributes in read.tags)


@pytest.mark.parametrize("code", ["ar", "he", "ckb"])
def test_every_number_of_right_to_left_starter_text_is_isolated(code: str) -> None:
    for document in starter.documents():
        if document.language == code:
            read = Reader(isolate(document.text()))
            digits = [c for c in document.text() if c.isdigit()]
            assert [c for isolated in read.isolated for c in isolated if c.isdigit()] == digits


def test_hostile_text_stays_text() -> None:
    hostile = "<script>alert(1)</script> & \"5\" 'mg' </bdi>"
    for html in (
        isolate(hostile),
        native(language("ar"), hostile),
        figure("<svg></svg>", hostile),
        details(hostile, ""),
    ):
        read = Reader(html)
        assert hostile in read.text
        assert "script" not in [tag for tag, _ in read.tags]
    assert isolate("<>&") == "&lt;&gt;&amp;"
    assert isolate("<5") == '<bdi dir="ltr">&lt;5</bdi>'


@pytest.mark.parametrize("code", [*sorted(all_languages())[::7], "ar", "he", "zh"])
def test_text_of_a_language_says_its_language_script_and_direction(code: str) -> None:
    row = language(code)
    name, text = Reader(native(row)), Reader(native(row, "5 mg <b>"))
    for read in (name, text):
        tag, attributes = read.tags[0]
        assert (tag, attributes["lang"], attributes["dir"]) == ("bdi", f"{row.code}-{row.script}", row.direction)
    assert name.text == row.native_name
    assert text.text == "5 mg <b>"


def test_figures_are_rounded_and_a_missing_one_is_a_dash() -> None:
    assert number(1234.5678) == "1,234.57"
    assert number(1234.4, 0) == "1,234"
    assert percent(0.3333) == "33.3"
    assert percent(0.0) == "0.0"
    assert number(0.0) == "0.00"
    assert number(None) == percent(None) == "&ndash;"


def test_a_table_has_a_cell_for_every_value_and_keeps_ready_cells() -> None:
    html = table(["a", "b", "c"], [["x", "1", heat(0.25, strong=True)], ["y", "2", heat(1.0)]], "5 < 6")
    read = Reader(html)
    tags = [tag for tag, _ in read.tags]
    assert (tags.count("th"), tags.count("tr"), tags.count("td")) == (3, 3, 6)
    assert read.text == "5 < 6abcx125y2100"
    assert [a.get("class") for tag, a in read.tags if tag == "td"][:3] == ["text", "figure", "heat own"]
    assert Reader(table(["a", "b"], [["x", "y"]], text_columns=2)).tags[-1][1]["class"] == "text"


def test_facts_are_a_list_of_terms_and_values() -> None:
    read = Reader(facts([("docs", "3"), ("loss", "&ndash;")]))
    assert [tag for tag, _ in read.tags] == ["dl", "div", "dt", "dd", "div", "dt", "dd"]
    assert read.text == "docs3loss–"
