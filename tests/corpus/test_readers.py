"""Readers: two formats, one meaning; a fault names its line, never the text, and never passes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyclinic.corpus.read.read as reading
from polyclinic.corpus.read.faults import Faults
from polyclinic.corpus.read.layouts import to_document
from polyclinic.corpus.read.questions import LETTERS, to_question
from polyclinic.corpus.read.read import LINE, read
from polyclinic.corpus.read.readers import Bad, rows
from polyclinic.corpus.read.streams import MAX_LINE_BYTES
from polyclinic.corpus_section import Source
from polyclinic.errors import DataError
from polyclinic.records import Document, Question, Turn

MARK = "Zwiebelkuchen"  # stands in every text, and in no message
TEXT = {"id": "t1", "language": "en", "source": "s", "licence": "CC0-1.0", "text": f"Drink water. {MARK}"}
OPTIONS = {"A": f"rice {MARK}", "B": f"salt {MARK}", "C": f"tea {MARK}"}
ITEM = {"id": "q1", "language": "en", "question": f"What? {MARK}", "options": OPTIONS, "answer": "B"}
ANY = Source(path="*")


def line(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def without(record: dict[str, Any], field: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != field}


def half(record: dict[str, Any]) -> bytes:
    """Return a line whose marked place holds half of a surrogate pair, as broken exports have it."""
    return json.dumps(record).replace("HALF", "\\ud800").encode()


BAD_TEXTS = {
    "no JSON": b'{"text": "' + MARK.encode(),
    "no object": line([MARK]),
    "a bare text": line(MARK),
    "not UTF-8": line(TEXT).replace(b"water", b"wat\xe9r"),
    "UTF-16": line(TEXT).decode().encode("utf-16"),
    "nested without end": b"[" * 100_000,
    "half a character": half({**TEXT, "text": f"HALF {MARK}"}),
    "half a character in a message": half({**TEXT, "messages": [{"role": "user", "content": f"HALF {MARK}"}]}),
    "no text": line(without(TEXT, "text")),
    "blank text": line({**TEXT, "text": " \u3000\n"}),
    "a number as text": line({**TEXT, "text": 5}),
    "no language": line(without(TEXT, "language")),
    "unknown language": line({**TEXT, "language": "xq"}),
    "text in the language's place": line({**TEXT, "language": f"Drink {MARK}"}),
    "no messages": line({**TEXT, "messages": []}),
    "messages without role": line({**TEXT, "messages": [{"content": MARK}]}),
    "messages as text": line({**TEXT, "messages": MARK}),
    "messages as a number": line({**TEXT, "messages": 3}),
    "a message of the system": line({**TEXT, "messages": [{"role": "system", "content": MARK}]}),
    "an empty message": line({**TEXT, "messages": [{"role": "user", "content": " "}]}),
    "a number as message": line({**TEXT, "messages": [{"role": "user", "content": 7}]}),
    "an id of another type": line({**TEXT, "id": {"n": MARK}}),
}
BAD_ITEMS = {
    "no question": line(without(ITEM, "question")),
    "empty question": line({**ITEM, "question": ""}),
    "no options": line(without(ITEM, "options")),
    "one option": line({**ITEM, "options": {"A": MARK, "B": None}, "answer": "A"}),
    "one option in a list": line({**ITEM, "options": [MARK], "answer": "A"}),
    "options as text": line({**ITEM, "options": MARK}),
    "an empty option": line({**ITEM, "options": {**OPTIONS, "C": " "}}),
    "an option that is a list": line({**ITEM, "options": {**OPTIONS, "C": [MARK]}}),
    "half a character in an option": half({**ITEM, "options": {**OPTIONS, "C": f"HALF {MARK}"}}),
    "more options than letters": line({**ITEM, "options": [f"{MARK} {i}" for i in range(27)]}),
    "no answer": line(without(ITEM, "answer")),
    "an answer outside the options": line({**ITEM, "answer": "D"}),
    "an answer of a null option": line({**ITEM, "options": {**OPTIONS, "C": None}, "answer": "C"}),
    "the text as answer": line({**ITEM, "answer": OPTIONS["B"]}),
    "no answer in a list": line({**ITEM, "answer": []}),
    "one of two answers outside": line({**ITEM, "answer": ["A", "Z"]}),
    "an answer inside two lists": line({**ITEM, "answer": [["A"]]}),
    "an object as answer": line({**ITEM, "answer": {"A": MARK}}),
}


@pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_text_is_an_error_with_its_line(tmp_path: Path, bad: bytes) -> None:
    _expect_error_on_line_3(tmp_path, line(TEXT), bad, to_document)


@pytest.mark.parametrize("bad", BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_a_bad_question_is_an_error_with_its_line(tmp_path: Path, bad: bytes) -> None:
    _expect_error_on_line_3(tmp_path, line(ITEM), bad, to_question)


def _expect_error_on_line_3(folder: Path, good: bytes, bad: bytes, convert: Callable[..., Any]) -> None:
    path = folder / "in.jsonl"
    path.write_bytes(b"\n".join([good, b"  ", bad.replace(b"\n", b" "), good]))  # the blank line counts, too
    records = read(path, ANY, convert)
    assert next(records) is not None
    with pytest.raises(DataError) as caught:
        list(records)
    assert caught.value.where == "in.jsonl:3"
    assert MARK not in str(caught.value)


def test_a_bad_row_of_parquet_is_an_error_with_its_row(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    path = write_records(tmp_path / "in.parquet", [TEXT] * 1500 + [{**TEXT, "text": None}, TEXT])
    with pytest.raises(DataError) as caught:
        list(read(path, ANY, to_document))
    assert caught.value.where == "in.parquet:1501"
    assert MARK not in str(caught.value)


def test_bytes_that_are_not_utf_8_in_parquet_are_an_error_with_the_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", f"{MARK} ".encode() + b"\xff", b"good"])
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": texts, "language": ["en"] * 3}), tmp_path / "in.parquet")
    records = read(tmp_path / "in.parquet", ANY, to_document)
    assert next(records).text() == "good"
    with pytest.raises(DataError) as caught:
        list(records)
    assert caught.value.where == "in.parquet:2"
    assert MARK not in str(caught.value)


def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    whole = write_records(tmp_path / "whole.parquet", [TEXT] * 10).read_bytes()
    for size in (0, 8, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.parquet").write_bytes(whole[:size])
        with pytest.raises(DataError, match="not a readable Parquet file"):
            list(rows(tmp_path / "cut.parquet"))


@pytest.mark.parametrize("name", ["absent.jsonl", "table.csv", "none"])
def test_a_file_that_is_absent_or_of_another_kind_is_an_error(tmp_path: Path, name: str) -> None:
    if name != "absent.jsonl":
        (tmp_path / name).write_text("text\n")
    with pytest.raises(DataError, match=name):
        list(rows(tmp_path / name))


def test_a_line_beyond_the_limit_is_an_error_and_one_at_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    start, end = b'{"text": "', b'"}\n'
    path.write_bytes(start + b"a" * (MAX_LINE_BYTES - len(start) - len(end)) + end)
    assert len(list(rows(path))) == 1
    path.write_bytes(b'{"text": "b"}\n' + start + b"a" * MAX_LINE_BYTES + end)
    good, bad = rows(path)
    assert not isinstance(good, Bad)
    assert isinstance(bad, Bad)
    assert bad.error.kind == "too long"
    assert str(bad.error).startswith("in.jsonl:2: the line has more than 16000000 bytes")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
names = st.text("abcXYZ-:09", min_size=1, max_size=6)
optional = {key: names | st.none() for key in ("source", "licence", "parallel_id")}
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), min_size=1, max_size=3
)
needed = {"id": names, "language": st.sampled_from(["en", "ar", "cmn", "pt-BR", "no"])}
documents = st.fixed_dictionaries({**needed, "text": texts}, optional=optional) | st.fixed_dictionaries(
    {**needed, "messages": turns}, optional=optional
)
items = st.integers(2, 5).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            **needed,
            "question": texts,
            "options": st.lists(texts, min_size=n, max_size=n).map(lambda o: dict(zip(LETTERS, o, strict=False))),
            "answer": st.lists(st.sampled_from(LETTERS[:n]), min_size=1, max_size=n, unique=True),
        },
        optional={**optional, "split": names, "context": texts},
    )
)


@settings(deadline=None, max_examples=25)
@given(found=st.lists(documents, min_size=1, max_size=6))
def test_json_lines_and_parquet_give_the_same_documents(
    found: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., Path]
) -> None:
    _expect_equal(found, to_document, tmp_path_factory.mktemp("same"), write_records)


@settings(deadline=None, max_examples=25)
@given(found=st.lists(items, min_size=1, max_size=6))
def test_json_lines_and_parquet_give_the_same_questions(
    found: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., Path]
) -> None:
    _expect_equal(found, to_question, tmp_path_factory.mktemp("same"), write_records)


def _expect_equal(found: Any, convert: Any, folder: Path, write_records: Callable[..., Path]) -> None:
    lines = write_records(folder / "in.jsonl", found)
    table = write_records(folder / "in.parquet", found)
    first = list(read(lines, ANY, convert))
    assert len(first) == len(found)
    assert first == list(read(table, ANY, convert))


def test_a_document_holds_what_its_record_says(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    dialogue = [{"role": "user", "content": "Thirsty."}, {"role": "assistant", "content": "Drink."}]
    records = [{**TEXT, "parallel_id": "p"}, {"language": "nob", "messages": dialogue, "licence": "", "id": None}]
    first, second = read(write_records(tmp_path / "in.jsonl", records), ANY, to_document)
    assert first == Document("t1", "en", "s", "CC0-1.0", "p", (Turn("text", TEXT["text"]),))
    assert second == Document(
        "in.jsonl:2",
        "no",
        "unnamed",
        "unknown",
        "in.jsonl:2",
        (Turn("user", "Thirsty."), Turn("assistant", "Drink.")),
    )


@pytest.mark.parametrize(
    ("options", "answer", "answers"),
    [
        (["x", "y", "z"], "C", (2,)),
        (["x", None, "z"], "C", (1,)),
        ({"A": "x", "B": "y", "E": None}, ["B", "A"], (1, 0)),
        ({"A": "x", "B": "y"}, ["B", "B"], (1,)),
        ({"1": 5, "2": 7.5}, "2", (1,)),
    ],
)
def test_options_may_be_a_list_or_an_object_and_answers_one_or_several(
    tmp_path: Path, options: Any, answer: Any, answers: tuple[int, ...]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(line({**ITEM, "options": options, "answer": answer}))
    (question,) = read(tmp_path / "in.jsonl", ANY, to_question)
    given = options.values() if isinstance(options, dict) else options
    assert question.options == tuple(str(o) for o in given if o is not None)
    assert question.answers == answers


def test_fields_map_other_column_names(tmp_path: Path, write_records: Callable[..., Path]) -> None:
    record = {"lang": "fr", "frage": "Quoi ?", "cands": ["oui", "non"], "gold": "A", "part": "dev"}
    columns = {"language": "lang", "question": "frage", "options": "cands", "answer": "gold", "split": "part"}
    path = write_records(tmp_path / "in.jsonl", [record, {**record, "part": "test"}])
    source = Source(path="*", fields=columns, splits=["dev"])
    (found,) = read(path, source, to_question)
    where = "in.jsonl:1"
    assert found == Question(where, "fr", "unnamed", "unknown", where, "dev", "Quoi ?", ("oui", "non"), (0,))


def test_filters_keep_source_split_and_language_by_any_alias(
    tmp_path: Path, write_records: Callable[..., Path]
) -> None:
    records = [
        {**TEXT, "id": f"{source}-{split}-{code}", "source": source, "split": split, "language": code}
        for source in ("s", "other")
        for split in ("train", "test")
        for code in ("zh", "cmn", "en")
    ]
    path = write_records(tmp_path / "in.jsonl", records)
    source = Source(path="*", names=["s"], splits=["train"], languages=["zho"])
    assert [d.id for d in read(path, source, to_document)] == ["s-train-zh", "s-train-cmn"]


def test_a_batch_ends_where_it_has_many_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays bounded however long the records are."""
    monkeypatch.setattr(reading, "MAX_CHARACTERS", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(line({**TEXT, "id": str(n), "text": "x" * 40}) + b"\n" for n in range(7)))
    batches = list(reading.documents(path, ANY, Faults(strict=True), "a.jsonl"))
    assert [batch.num_rows for batch in batches] == [3, 3, 1]
    assert [n for batch in batches for n in batch.column(LINE).to_pylist()] == list(range(1, 8))
