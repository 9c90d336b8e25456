"""The data card: its figures are those of the documents, and its tables stay tables."""

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

from polyclinic.corpus.card.card import as_markdown, collect, write_card
from polyclinic.corpus.card.report import fragment
from polyclinic.languages import language
from polyclinic.records import Document, Question, Turn
from polyclinic.runs import read_json


def corpus() -> tuple[list[Document], list[Question]]:
    documents = [
        Document(f"{i}", code, source, licence, f"g{i}", (Turn("user", "é" * i), Turn("assistant", "漢")), split)
        for i, (code, (source, licence), split) in enumerate(
            product(["sw", "en"], [("a", "MIT"), ("a", "CC0-1.0"), ("b|c\nd", "MIT")], ["train", "train", "held_out"])
        )
    ]
    questions = [
        Question(f"{i}", code, "exam", "MIT", "g", "test", "?", ("x", "y"), (0,)) for i, code in enumerate(["en", "fr"])
    ]
    return documents, questions


def test_counts_are_those_of_the_documents() -> None:
    documents, questions = corpus()
    card = collect(iter(documents), iter(questions))
    assert list(card["languages"]) == ["en", "fr", "sw"]
    assert card["languages"]["fr"] == {"questions": 1}
    for code in ("en", "sw"):
        mine = [d for d in documents if d.language == code]
        row = card["languages"][code]
        assert (row["train"], row["held_out"]) == (6, 3)
        assert row["characters"] == sum(len(turn.content) for d in mine for turn in d.turns) + len(mine)  # line ends
    assert sum(s.get("train", 0) + s.get("held_out", 0) for s in card["sources"]) == len(documents)
    assert [(s["source"], s["licence"]) for s in card["sources"]] == sorted(
        {(d.source, d.licence) for d in documents} | {("exam", "MIT")}
    )


def test_every_row_of_the_markdown_has_the_cells_of_its_head(tmp_path: Path) -> None:
    write_card(tmp_path, *corpus(), rows_in=20, counts=Counter({"dropped: empty": 2, "changed: normalised": 1}))
    text = (tmp_path / "card.md").read_text("utf-8")
    assert text == as_markdown(read_json(tmp_path / "card.json"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = [line.replace("\\|", "").count("|") for line in rows]
    assert widths == [7] * 5 + [6] * 6  # three languages and four sources, each with head and rule
    assert all(language(code).name in text for code in ("en", "fr", "sw"))
    assert "- changed: normalised: 1\n- dropped: empty: 2\n" in text


def test_text_set_aside_for_validation_has_a_column_of_its_own(tmp_path: Path) -> None:
    documents, questions = corpus()
    aside = [replace(d, split="validation") if d.id == "0" else d for d in documents]
    assert documents[0].language == "sw"
    write_card(tmp_path, aside, questions, rows_in=20, counts=Counter())
    assert read_json(tmp_path / "card.json")["languages"]["sw"] == {
        **collect(documents, questions)["languages"]["sw"], "train": 5, "validation": 1,
    }  # fmt: skip
    rows = [line for line in (tmp_path / "card.md").read_text("utf-8").splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows[:5]} == {8}
    assert rows[0].split(" | ")[2:5] == ["train", "validation", "held out"]
    assert next(row for row in rows if row.startswith("| sw")).split(" | ")[2:5] == ["5", "1", "3"]
    (tmp_path / "documents").mkdir()
    assert fragment(tmp_path).html.count('<th scope="col">validation</th>') == 2


def test_a_corpus_that_lost_nothing_says_so() -> None:
    assert as_markdown({**collect([], []), "rows_in": 0, "counts": {}}).endswith("- nothing\n")
