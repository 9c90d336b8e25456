"""The report page: one file that asks nobody for anything, well-formed, and says its warning to everybody."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from polyclinic.corpus import starter
from polyclinic.families import fifty
from polyclinic.figures import lines
from polyclinic.languages import language
from polyclinic.markup import Fragment, details, figure, heat, table
from polyclinic.page import notice, page

VOID = {"meta", "br", "hr", "img", "input", "link", "base", "wbr"}  # HTML 13.1.2
OWN_LINE = {"p", "table", "div", "dl", "section", "details", "figure", "h1", "h2", "pre"}  # what a <p> cannot hold


class Reader(HTMLParser):
    """Checks nesting and collects attributes, styles and the text by language."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.style, self.text, self.by_language = "", "", {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not (tag in OWN_LINE and "p" in [name for name, _ in self.open]), tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "style":
            self.style += data
            return
        self.text += data
        for _, attributes in self.open:
            if "lang" in attributes:
                code = attributes["lang"]
                self.by_language[code] = self.by_language.get(code, "") + data


@pytest.fixture(scope="module")
def html() -> str:
    chart = lines({"base <a>": [(0, 1), (1, 2)], "mixture": [(0, 2), (1, 1)]}, "step", "loss")
    scores = table(["language", "score"], [["sw", heat(0.5)], ["ar", "&ndash;"]], "Scores")
    fragments = [Fragment("Tables & <b>", "Read it so.", scores), Fragment("Charts", "And so.", figure(chart, "Loss"))]
    fragments.append(Fragment("More", "", details("Folded", scores)))
    return page("a <run> & more", [("questions", "3")], fragments, {"name": "</pre><script>", "text": "ñ漢"})


def test_the_page_is_one_document_with_valid_nesting(html: str) -> None:
    read = Reader(html)
    assert html.startswith("<!doctype html><html lang=")
    assert html.count("<html") == html.count("<body") == html.count("<title") == 1
    assert "Polyclinic: a <run> & more" in read.text
    assert "Tables & <b>" in read.text


def test_the_page_requests_nothing(html: str) -> None:
    read = Reader(html)
    fetching = {"src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background", "ping"}
    asked = {value for _, name, value in read.attributes if name in fetching}
    assert all(value.startswith("#") for value in asked), asked
    styles = [read.style, *(value for _, name, value in read.attributes if name in ("style", "clip-path", "fill"))]
    used = [found for style in styles for found in re.findall(r"url\(\s*['\"]?([^)'\"]*)", style)]
    assert all(found.startswith("#") for found in used), used
    assert not any("@import" in style or "image-set" in style for style in styles)
    assert "<script" not in html
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]


def test_the_policy_allows_only_the_styles_of_the_page_itself(html: str) -> None:
    found = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert len(found) == 1
    rules = {part.split()[0]: part.split()[1:] for part in found[0].split(";")}
    assert rules["default-src"] == ["'none'"]
    assert all(source in ("'none'", "'unsafe-inline'", "data:") for sources in rules.values() for source in sources)
    assert "script-src" not in rules
    assert html.index("Content-Security-Policy") < html.index("<style")


def test_the_notice_stands_in_fifty_languages_each_marked_as_its_own() -> None:
    read = Reader(notice())
    assert "Nothing it says is medical advice" in read.text
    for code in fifty():
        if code != "en":
            row = language(code)
            assert read.by_language[f"{code}-{row.script}"] == starter.entries()[code]["notice"]
    assert len(read.by_language) == 49


def test_right_to_left_text_is_marked_and_the_page_runs_left_to_right(html: str) -> None:
    directions = {(tag, value) for tag, name, value in Reader(html).attributes if name == "dir"}
    assert {("html", "ltr"), ("bdi", "rtl"), ("bdi", "ltr")} <= directions


def test_the_recipe_is_shown_as_it_was_given(html: str) -> None:
    shown = Reader(html).text
    start = shown.index("{", shown.index("All of them"))
    assert json.JSONDecoder().raw_decode(shown[start:])[0] == {"name": "</pre><script>", "text": "ñ漢"}


def test_the_style_serves_light_dark_and_both_directions() -> None:
    css = files("polyclinic").joinpath("data/report.css").read_text("utf-8")
    assert "prefers-color-scheme: dark" in css
    assert "url(" not in css
    for physical in ("margin-left", "margin-right", "padding-left", "padding-right", "text-align: left", "float:"):
        assert physical not in css


def test_the_same_page_has_the_same_bytes(html: str) -> None:
    chart = {"a": [(0.0, 1.0), (1.0, 2.0)]}
    assert lines(chart, "x", "y") == lines(chart, "x", "y")
    assert page("a", [], [], {}) == page("a", [], [], {})
