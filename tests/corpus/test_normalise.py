"""Normalisation: one form for equal texts, nothing invisible that turns them around, nothing else lost."""

import unicodedata

import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus import starter
from polyclinic.corpus.normalise import clean, normalise
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.records import Document, Turn

ODD = [
    " ",
    "\n",
    "\r",
    "\t",
    "\u00a0",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u200f",
    "\u202e",
    "\u2028",
    "e",
    "\u0301",
    "\ufeff",
]
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(ODD), max_size=30)


@settings(deadline=None, max_examples=50)
@given(texts)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@settings(deadline=None, max_examples=50)
@given(texts)
def test_clean_text_is_composed_and_free_of_control_and_direction_marks(text: str) -> None:
    cleaned = clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not regex.search(r"[\p{Bidi_Control}\p{Cc}--\n]", cleaned, regex.V1)
    assert not regex.search(r"[^\S\n ]|  | \n|\n | ?\n\n|^\s|\s$", cleaned)


def test_every_direction_mark_of_unicode_goes() -> None:
    marks = regex.findall(r"\p{Bidi_Control}", "".join(map(chr, range(0x110000))))
    assert len(marks) == 12  # https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt
    assert clean("5" + "".join(marks) + " mg") == "5 mg"


@pytest.mark.parametrize("text", ["می\u200cخواهم", "क्\u200dष", "نەخۆش\u200cخانە"])
def test_joiners_stay(text: str) -> None:
    assert clean(text) == unicodedata.normalize("NFC", text)


def test_a_letter_and_its_accent_are_composed_across_a_mark_that_goes() -> None:
    assert clean("e\u200b\u0301") == "\u00e9"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", " \n\t\n "])
def test_no_kind_of_line_end_joins_two_words(end: str) -> None:
    assert clean(f"one{end}two") == "one\ntwo"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("aéßعपा漢ク𝒳9", min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_only_the_kind_of_space_between_words_changes(words: list[str], data: st.DataObject) -> None:
    spaces = st.text("\u0020\u0009\u00a0\u3000\u2009", min_size=1, max_size=3)
    text = words[0] + "".join(data.draw(spaces) + word for word in words[1:])
    assert clean(text) == unicodedata.normalize("NFC", " ".join(words))


def test_the_starter_corpus_is_clean_already() -> None:
    assert [d.id for d in starter.documents() if any(clean(t.content) != t.content for t in d.turns)] == []


def test_a_batch_counts_what_it_changed_and_what_it_dropped() -> None:
    contents = [("clean",), ("a  b", "c"), ("\u200b\u202e ",), ("kept", "\n")]
    documents = [
        Document(str(i), "en", "s", "l", str(i), tuple(Turn("user", c) for c in parts))
        for i, parts in enumerate(contents)
    ]
    step = normalise(pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS))
    kept = [Document.from_row(row) for row in step.batch.to_pylist()]
    assert [[t.content for t in d.turns] for d in kept] == [["clean"], ["a b", "c"]]
    assert step.counts == {"changed: normalised": 3, "dropped: empty": 2}
    assert step.batch.schema == DOCUMENTS
