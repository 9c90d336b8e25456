"""How much text a folder holds: tokens where it was packed, characters where it was not, never a guess."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyclinic.corpus.card.amounts import amounts
from polyclinic.errors import DataError

CARD = {"languages": {"en": {"train": 2, "characters": 70}, "sw": {"questions": 3}}}
PACKS = {"packs": 1, "tokens": {"en": 20, "no": 5}}


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


@pytest.mark.parametrize("place", ["packs.json", "packed/packs.json"])
def test_packs_are_counted_in_tokens_before_the_card_in_characters(place: str, tmp_path: Path) -> None:
    put(tmp_path / "corpus" / "card.json", CARD)
    put(tmp_path / place, PACKS)
    assert amounts(tmp_path) == ("tokens", {"en": 20, "no": 5})


@pytest.mark.parametrize("place", ["card.json", "corpus/card.json"])
def test_without_packs_characters_are_counted_and_questions_are_no_text(place: str, tmp_path: Path) -> None:
    put(tmp_path / place, CARD)
    assert amounts(tmp_path) == ("characters", {"en": 70, "sw": 0})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("packs.json", {"packs": 1}, "no amount of text"),
        ("packs.json", [], "no amount of text"),
        ("packs.json", {"tokens": 3}, "no amount of text"),
        ("packs.json", {"tokens": {"en": "3"}}, "no amount of text"),
        ("packs.json", {"tokens": {"en": True}}, "no amount of text"),
        ("packs.json", {"tokens": {"en": 2.5}}, "no amount of text"),
        ("packs.json", {"tokens": {"en": -1}}, "no amount of text"),
        ("packs.json", {"tokens": {"no": 1, "nb": 1}}, "no amount of text"),
        ("packs.json", {"tokens": {"en": 0}}, "counts no text"),
        ("packs.json", {"tokens": {}}, "counts no text"),
        ("packs.json", {"tokens": {"xq": 1}}, "unknown language 'xq'"),
        ("packs.json", "{", "cannot be read"),
        ("card.json", {"languages": {"en": 3}}, "no amount of text"),
        ("card.json", {"languages": []}, "no amount of text"),
        ("card.json", {"languages": {"en": {"questions": 3}}}, "counts no text"),
    ],
)
def test_damaged_counts_are_refused_by_the_name_of_their_file(
    name: str, value: Any, message: str, tmp_path: Path
) -> None:
    put(tmp_path / name, value)
    with pytest.raises(DataError, match=message) as caught:
        amounts(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "elsewhere", put(tmp_path / "file", "x")):
        with pytest.raises(DataError, match="holds no built corpus"):
            amounts(folder)
