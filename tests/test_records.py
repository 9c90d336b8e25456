"""Records survive a table unchanged, and held-out text is taken evenly."""

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.tables import DOCUMENTS, QUESTIONS
from polyclinic.records import Document, Question, Turn, held_out

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
turns = st.lists(st.builds(Turn, st.sampled_from(["text", "user", "assistant"]), texts), max_size=3).map(tuple)
documents = st.builds(Document, texts, texts, texts, texts, texts, turns, texts)
questions = st.builds(
    Question,
    *[texts] * 7,
    st.lists(texts, max_size=4).map(tuple),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
    texts,
)


@settings(deadline=None, max_examples=50)
@given(documents, questions)
def test_a_record_comes_back_from_its_table_as_it_was(document: Document, question: Question) -> None:
    table = pa.RecordBatch.from_pylist([document.row()], schema=DOCUMENTS)
    assert Document.from_row(table.to_pylist()[0]) == document
    table = pa.RecordBatch.from_pylist([question.row()], schema=QUESTIONS)
    assert Question.from_row(table.to_pylist()[0]) == question


def test_the_text_of_a_document_is_its_turns_one_a_line() -> None:
    turns = (Turn("user", "Why?"), Turn("assistant", "So.\nThus."))
    assert Document("1", "en", "s", "l", "g", turns).text() == "Why?\nSo.\nThus."


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(["en", "sw"]), st.sampled_from(["train", "held_out", ""]))), st.integers(0, 4)
)
def test_held_out_text_is_the_first_of_each_language_up_to_the_cap(found: list[tuple[str, str]], cap: int) -> None:
    given_documents = [Document(str(i), code, "s", "l", "g", (), split) for i, (code, split) in enumerate(found)]
    taken = held_out(iter(given_documents), cap)
    for code in ("en", "sw"):
        mine = [d for d in given_documents if d.language == code and d.split == "held_out"]
        assert [d for d in taken if d.language == code] == mine[:cap]
    assert taken == sorted(taken, key=lambda d: int(d.id))
    assert all(n <= cap for n in Counter(d.language for d in taken).values())
