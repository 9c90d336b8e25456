"""Layouts: what each says is a document, told apart by declared names alone."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from polyclinic.corpus.read.layouts import MAX_NAME, Shape, layouts, to_document
from polyclinic.corpus.read.read import read
from polyclinic.corpus.read.rows import Row
from polyclinic.corpus_section import Source
from polyclinic.errors import DataError
from polyclinic.records import Document, Turn

ASKED = [Turn("user", "Fever?"), Turn("assistant", "Rest.")]


def document(record: dict[str, Any], **source: Any) -> Document:
    return to_document(Row("in.jsonl", 1, record), Shape(Source(path="*", **{"language": "en", **source})))


def pairs(speaker: str, words: str, *turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{speaker: who, words: content} for who, content in turns]


APOLLO = {"source": "medicalExam_en", "language": "en", "class": "major"}
RECORDS: dict[str, tuple[str, dict[str, Any], list[Turn]]] = {
    "apollo": (
        "apollo",
        {**APOLLO, "conversations": pairs("from", "value", ("human", "Fever?"), ("gpt", "Rest."))},
        ASKED,
    ),
    "sharegpt with a system turn": (
        "sharegpt",
        {"conversations": pairs("from", "value", ("system", "Be brief."), ("human", "Fever?"), ("gpt", "Rest."))},
        [Turn("user", "Be brief.\nFever?"), Turn("assistant", "Rest.")],
    ),
    "openai": ("openai", {"messages": pairs("role", "content", ("user", "Fever?"), ("assistant", "Rest."))}, ASKED),
    "openai in parts, told twice": (
        "openai",
        {
            "messages": pairs(
                "role",
                "content",
                ("developer", "A"),
                ("system", "B"),
                ("user", [{"type": "text", "text": "Fever?"}, {"type": "text", "text": "Since when?"}]),
                ("assistant", "Rest."),
                ("system", "C"),
                ("user", "And then?"),
            )
        },
        [Turn("user", "A\nB\nFever?\nSince when?"), Turn("assistant", "Rest."), Turn("user", "C\nAnd then?")],
    ),
    "alpaca": ("alpaca", {"instruction": "Fever?", "input": "", "output": "Rest."}, ASKED),
    "alpaca with input and history": (
        "alpaca",
        {"instruction": "Advise.", "input": "Fever.", "output": "Rest.", "history": [["Hello", "Hello."]]},
        [
            Turn("user", "Hello"),
            Turn("assistant", "Hello."),
            Turn("user", "Advise.\nFever."),
            Turn("assistant", "Rest."),
        ],
    ),
    "our own text": ("polyclinic", {"text": "Rest."}, [Turn("text", "Rest.")]),
    "our own messages": (
        "polyclinic",
        {"messages": pairs("role", "content", ("user", "Fever?"), ("assistant", "Rest."))},
        ASKED,
    ),
}


@pytest.mark.parametrize(("layout", "record", "turns"), RECORDS.values(), ids=RECORDS)
def test_a_layout_says_which_turns_a_record_has(layout: str, record: dict[str, Any], turns: list[Turn]) -> None:
    assert list(document(record, layout=layout).turns) == turns


BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "a tool speaks": ("openai", {"messages": pairs("role", "content", ("tool", "x"))}, "another role"),
    "an image": (
        "openai",
        {"messages": pairs("role", "content", ("user", [{"type": "image_url"}]))},
        "a message is not text",
    ),
    "nothing said": ("openai", {"messages": pairs("role", "content", ("assistant", None))}, "a message is not text"),
    "only the system": ("openai", {"messages": pairs("role", "content", ("system", "x"))}, "no messages"),
    "names of another layout": ("openai", {"messages": pairs("from", "value", ("user", "x"))}, "without role and"),
    "no conversations": ("apollo", {"text": "x"}, "without from and value"),
    "a history that is none": ("alpaca", {"instruction": "x", "output": "y", "history": ["abc"]}, "no list of pairs"),
    "no instruction": ("alpaca", {"output": "y"}, "field 'instruction' is missing"),
    "a long name of a source": ("polyclinic", {"text": "x", "source": "s" * (MAX_NAME + 1)}, "more than 200"),
    "a text as category": ("polyclinic", {"text": "x", "category": "s" * (MAX_NAME + 1)}, "more than 200"),
}


@pytest.mark.parametrize(("layout", "record", "words"), BROKEN.values(), ids=BROKEN)
def test_a_record_that_does_not_fit_its_layout_is_an_error(layout: str, record: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        document(record, layout=layout)


@pytest.mark.parametrize(
    ("source", "category"),
    [
        ("medicalBook_en_qa", "books"),
        ("medicalPatient_zh", "dialogues"),
        ("general_hi", "general"),
        ("math_en", "math"),
        ("another", ""),
        (None, ""),
    ],
)
def test_apollos_sources_name_their_category(source: str | None, category: str) -> None:
    record = {**APOLLO, "source": source, "conversations": pairs("from", "value", ("human", "a"), ("gpt", "b"))}
    assert document(record, layout="apollo").category == category


def test_the_released_file_is_one_array(tmp_path: Path) -> None:
    record = {**APOLLO, "conversations": pairs("from", "value", ("human", "Fever?"), ("gpt", "Rest."))}
    (tmp_path / "in.json").write_text(json.dumps([record, {**record, "language": "gn", "class": "minor"}]))
    found = list(read(tmp_path / "in.json", Source(path="*", layout="apollo", licence="MIT"), to_document))
    assert [(d.id, d.language, d.source, d.licence, d.category) for d in found] == [
        ("in.json:1", "en", "medicalExam_en", "MIT", "exams"),
        ("in.json:2", "gn", "medicalExam_en", "MIT", "exams"),
    ]


def test_a_record_comes_before_the_constants_of_its_source() -> None:
    constants = {"language": "fr", "licence": "MIT", "source": "s", "url": "u", "category": "web"}
    said = {"language": "nob", "licence": "CC0-1.0", "source": "t", "url": "v", "kind": "books"}
    mapped = {**constants, "fields": {"category": "kind"}}
    assert document({"text": "x", **said}, **mapped) == Document(
        "in.jsonl:1", "no", "t", "CC0-1.0", "in.jsonl:1", (Turn("text", "x"),), "", "books", "v"
    )
    assert document({"text": "x", "kind": " ", "url": None}, **mapped) == Document(
        "in.jsonl:1", "fr", "s", "MIT", "in.jsonl:1", (Turn("text", "x"),), "", "web", "u"
    )


def test_whole_numbers_are_names_and_truth_values_are_not() -> None:
    found = document({"text": "x", "id": 7, "parallel_id": 0})
    assert (found.id, found.group) == ("7", "0")
    with pytest.raises(DataError, match="field 'id' is not text"):
        document({"text": "x", "id": True})


def test_a_recipe_may_name_every_layout() -> None:
    assert set(get_args(Source.model_fields["layout"].annotation)) == set(layouts())
