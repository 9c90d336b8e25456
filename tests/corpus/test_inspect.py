"""What was kept and dropped of a language, shown so that every script stays in its line and its columns."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from polyclinic.cli import main
from polyclinic.corpus.build import build
from polyclinic.corpus.card.inspect import EXAMPLES, fitted, inspect, lines
from polyclinic.corpus.clean import DROPS_FILE
from polyclinic.corpus.starter import documents
from polyclinic.errors import DataError
from polyclinic.progress import Silent
from polyclinic.runs import read_json

LANGUAGES = ["ar", "en", "hi", "lo", "zh"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., Path]) -> Path:
    """The starter corpus in five scripts with a copy of its half, in files, and some rows in another language."""
    from polyclinic.corpus_section import CorpusSection

    home = tmp_path_factory.mktemp("inspect")
    for name, every in (("a", 1), ("b", 2)):
        for code in LANGUAGES:
            found = [d for d in documents() if d.language == code][::every]
            rows: list[dict[str, Any]] = [
                {"id": f"{name}{i}", "language": code, "text": d.text(), "source": f"نص \x1b[31m{name}"}
                for i, d in enumerate(found)
            ]
            write_records(home / f"in/{name}-{code}.jsonl", [*rows, {**rows[0], "language": "sw", "id": "x"}])
    section = {"root": str(home / "in"), "texts": [{"path": "*.jsonl"}], "languages": LANGUAGES, "held_out": 0.3}
    out = home / "corpus"
    out.mkdir()
    build(CorpusSection.model_validate(section), out, Silent())
    return out


@pytest.mark.parametrize("code", LANGUAGES)
def test_counts_are_those_of_the_card_and_examples_are_of_the_language(corpus: Path, code: str) -> None:
    found = inspect(corpus, code)
    row = read_json(corpus / "card.json")["languages"][code]
    assert found["kept"]["splits"] == {name: row[name] for name in ("train", "held_out") if name in row}
    assert sum(found["kept"]["splits"].values()) == 8
    assert [(r["reason"], r["documents"]) for r in found["dropped"]] == [("exact duplicate", 4)]
    own = {d.text() for d in documents() if d.language == code}
    shown = [*found["kept"]["examples"], *found["dropped"][0]["examples"]]
    assert len(shown) == 2 * EXAMPLES
    assert all(any(text.startswith(example["text"]) for text in own) for example in shown)


def test_what_was_dropped_is_counted_by_language_and_adds_up_to_the_counts_of_the_card(corpus: Path) -> None:
    by_language = read_json(corpus / DROPS_FILE)
    assert by_language["sw"] == {"language not in the recipe": 10}
    card = read_json(corpus / "card.json")["counts"]
    for reason in ("exact duplicate", "language not in the recipe"):
        assert sum(row.get(reason, 0) for row in by_language.values()) == card[f"dropped: {reason}"]
    found = inspect(corpus, "sw")
    assert found["kept"] == {"splits": {}, "examples": []}
    assert lines(found, 80)[1] == "kept     nothing"


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("width", [40, 100])
def test_no_line_is_wider_than_the_terminal_or_moves_what_stands_beside_it(corpus: Path, code: str, width: int) -> None:
    for line in lines(inspect(corpus, code), width):
        assert cell_len(line) <= width
        assert not [c for c in line if unicodedata.category(c) == "Cc"]
        assert line.count("\u2068") == line.count("\u2069") <= 1
        outside = line.partition("\u2068")[0] + line.partition("\u2069")[2]
        assert all(unicodedata.bidirectional(c) not in ("R", "AL", "RLO", "LRO", "RLE", "LRE") for c in outside)


@given(text=st.text("aé漢क्षि\u0301\u200d👩👧ี ", max_size=40), width=st.integers(2, 30))
def test_text_is_cut_to_its_columns_between_characters(text: str, width: int) -> None:
    cut = fitted(text, width)
    assert cell_len(cut) <= width
    if cut != text:
        assert cell_len(text) > width
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert not unicodedata.category(text[len(cut) - 1]).startswith("M") or not cut[:-1]


def test_the_command_shows_both_or_says_what_is_wrong(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "inspect", str(corpus), "--language", "cmn"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Chinese (zh)\nkept ")
    assert "      4  exact duplicate\n" in said
    assert main(["corpus", "inspect", str(corpus), "--language", "zh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect(corpus, "zh")
    assert main(["corpus", "inspect", str(corpus), "--language", "arabc"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["corpus", "inspect", str(corpus), "--language", "fr"]) == 3
    assert "holds no text in French (fr); " in capsys.readouterr().err
    with pytest.raises(DataError):
        inspect(corpus, "fr")
