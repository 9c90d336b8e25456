"""Measures: equal to a slow and plain count, in bounds, blind to spacing and composition, moved by repeats."""

import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.normalise import clean
from polyclinic.corpus.quality import characters, measure
from polyclinic.corpus.quality.measure import MEASURES, units_of
from polyclinic.corpus.quality.measure import measure as measured
from polyclinic.corpus.quality.terms import Terms
from polyclinic.families import fifty

WORDS = ["a", "b", "é", "Fever", "fever", "42", "x-y", "don't", "…", "発熱", "ไข้", "%", "😀", "c\u0323", "\u0301", "ကို"]
LINES = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=8)
# Above these two planes all ideographs count as letters, assigned or not.
CHARACTERS = st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"])
TEXTS = LINES.map("\n".join) | st.text(CHARACTERS, max_size=60)
TERMS = ("fever", "42*", "*on*", "b a", "熱")


def plain(text: str, code: str) -> dict[str, float]:
    """Return what `measure` should, counted one character and one word at a time."""
    units = units_of(code)
    kinds = [kind_of(c) for c in text]
    seen = sum(k != "Z" for k in kinds)
    lines = text.split("\n")
    words = [words_of(line, units.spaced) for line in lines]
    count = sum(map(len, words))
    grams, tops = ([tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)] for n in units[1:])
    before: Counter[str] = Counter()
    again = 0
    for line in lines:
        folded = "".join(fold(c) for c in line)
        again += len(line) if before[folded] else 0
        before[folded] += 1
    most = max(Counter(tops).values(), default=0)
    share = {name: kinds.count(letter) / seen if seen else 0.0 for name, letter in zip(SHARES, "SNP", strict=True)}
    return {
        "length": count,
        "lines": again / sum(map(len, lines)) if any(lines) else 0.0,
        "repetition": 1 - len(set(grams)) / len(grams) if grams else 0.0,
        "top": min(max(most - 1, 0) * units.top / count, 1.0) if count else 0.0,
        **share,
        "terms": 0.0,
    }


SHARES = ("symbols", "digits", "punctuation")


def kind_of(char: str) -> str:
    if char in "\t\n\r":
        return "Z"
    if char in "\u200c\u200d":
        return "M"
    letter = unicodedata.category(char)[0]
    return "S" if letter == "C" else letter


def fold(char: str) -> str:
    small = char.lower() if len(char.lower()) == 1 else char
    return " " if kind_of(char) == "Z" else "'" if small in "\u2018\u2019\u02bc\u02bb\u00b4`" else small


def words_of(line: str, spaced: bool) -> list[str]:
    word = "".join(fold(c) if kind_of(c) in "LMN" else "\n" for c in line)
    runs = [run for run in word.split("\n") if run]
    if spaced:
        return runs
    return [unit for run in runs for unit in graphemes(run)]


def graphemes(run: str) -> list[str]:
    out: list[str] = []
    for char in run:
        if kind_of(char) != "M":
            out.append(char)
        elif out:
            out[-1] += char
    return out


def nothing(found: characters.Characters) -> np.ndarray:
    return np.zeros(found.count)


@settings(deadline=None, max_examples=80)
@given(texts=st.lists(TEXTS.map(clean), min_size=1, max_size=5), code=st.sampled_from(["en", "zh", "th"]))
def test_measures_are_what_a_plain_count_gives_whatever_stands_beside(texts: list[str], code: str) -> None:
    found = measured(texts, units_of(code), nothing)
    assert tuple(found) == MEASURES
    for place, text in enumerate(texts):
        for name, value in plain(text, code).items():
            assert found[name][place] == pytest.approx(value), (name, text)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXTS, max_size=5), code=st.sampled_from(["en", "ja", "ar"]))
def test_measures_are_finite_and_shares_lie_between_0_and_1(texts: list[str], code: str) -> None:
    terms = Terms(TERMS, units_of(code).spaced)
    for name, values in measured(texts, units_of(code), terms.covered).items():
        assert np.isfinite(values).all()
        assert len(values) == len(texts)
        assert (values >= 0).all()
        assert name == "length" or (values <= 1).all()


@settings(deadline=None, max_examples=60)
@given(text=TEXTS, code=st.sampled_from(["en", "lo"]), form=st.sampled_from(["NFC", "NFD"]))
def test_composition_and_spacing_change_nothing_once_normalised(text: str, code: str, form: str) -> None:
    terms = Terms(TERMS, units_of(code).spaced)
    other = unicodedata.normalize(form, clean(text)).replace(" ", "\u00a0  ").replace("\n", " \r\n\n")
    one, two = (measured([clean(t)], units_of(code), terms.covered) for t in (text, other))
    assert {name: values.tolist() for name, values in one.items()} == {n: v.tolist() for n, v in two.items()}


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(st.lists(st.sampled_from(WORDS[:8]), min_size=6, max_size=9), min_size=1, max_size=5))
def test_a_copy_of_a_line_raises_both_kinds_of_repetition_unless_all_repeats(lines: list[list[str]]) -> None:
    text = "\n".join(map(" ".join, lines))
    before, after = (
        {name: values[0] for name, values in measured([t], units_of("en"), nothing).items()}
        for t in (text, f"{text}\n{' '.join(lines[-1])}")
    )
    assert after["lines"] > before["lines"]
    assert after["repetition"] > before["repetition"]


def test_chunks_and_long_documents_are_measured_as_they_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"fever {i} and pain, " * (i % 7) for i in range(50)]
    whole = measured(texts, units_of("en"), nothing)
    monkeypatch.setattr(measure, "CHUNK", 100)
    parts = measured(texts, units_of("en"), nothing)
    assert all((whole[name] == parts[name]).all() for name in MEASURES)
    long = "one two three four. " * 12_000
    assert len(long) > characters.WINDOW
    found = measured([long], units_of("en"), nothing)
    assert found["length"][0] == pytest.approx(48_000)
    assert found["repetition"][0] > 0.99


def test_scripts_without_spaces_are_counted_in_characters_and_n_grams_are_about_as_long() -> None:
    unspaced = {code for code in fifty() if not units_of(code).spaced}
    assert unspaced == {"zh", "ja", "th", "lo"}
    assert not any(units_of(code).spaced for code in ("km", "my"))
    assert [units_of(code).repeated for code in ("en", "zh", "th")] == [5, 9, 22]
    assert measured(["ผู้ป่วยมีไข้"], units_of("th"), nothing)["length"].tolist() == [7]
    assert measured(["患者は発熱 39"], units_of("ja"), nothing)["length"].tolist() == [7]


def covered(term: str, text: str, spaced: bool) -> int:
    """Count the characters of words in matches of one term, with a regular expression."""
    begin = r"(?<!\w)" if spaced and not term.startswith("*") else ""
    end = r"(?!\w)" if spaced and not term.endswith("*") else ""
    inside: set[int] = set()
    for match in re.finditer(f"(?={begin}({re.escape(term.strip('*'))}){end})", text.lower()):
        inside |= set(range(*match.span(1)))
    return sum(text[place].isalnum() for place in inside)


@settings(deadline=None, max_examples=100)
@given(text=st.text("ab cB-1", max_size=40), term=st.text("ab c1", min_size=1, max_size=5), kind=st.integers(0, 3))
def test_terms_are_found_where_a_regular_expression_finds_them(text: str, term: str, kind: int) -> None:
    wanted = clean(term)
    if not wanted:
        return
    wanted = "*" * (kind & 1) + wanted + "*" * (kind >> 1)
    written = clean(text)
    for spaced in (True, False):
        # A word of the expression is a run of letters and digits; a term may begin inside none or one.
        found = Terms([wanted], spaced).covered(characters.Characters([written, "ab", written]))
        starts_outside = spaced and not wanted.startswith("*") and not wanted.strip("*")[0].isalnum()
        assert starts_outside or found[0] == found[2] == covered(wanted, written, spaced)


def test_terms_that_lie_in_each_other_count_once_and_case_and_apostrophe_do_not_matter() -> None:
    terms = Terms(["mba'asy*", "asy", "*'as*"], spaced=True)
    one, two, none = terms.covered(characters.Characters(["Mba’asykuéra", "MBAʼASY", "asyx"])).tolist()
    assert (one, two, none) == (len("mbaasy"), len("mba'asy"), 0)
