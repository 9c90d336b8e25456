"""Scores with and without leaked questions, by a report that the corpus wrote."""

from pathlib import Path

import pyarrow as pa
import pytest

from made_items import item
from polyclinic.corpus.leaks import leaks as corpus_leaks
from polyclinic.errors import DataError
from polyclinic.evaluate.statistics.leak_flags import flagged, read_leaks
from polyclinic.evaluate.statistics.tables import scores
from polyclinic.runs import write_json

ITEMS = [
    *(item(n, n in (0, 1), group=f"g {n}") for n in range(6)),
    *(item(n, n == 0, language="fr", group=f"g {n}") for n in range(6)),
    *(item(n, True, exam="f") for n in range(3)),
]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Write the report by the corpus' own code: items 0, 1 of English leaked, 5 was too short."""
    rows = [{"benchmark": "e", "language": code, "id": str(n)} for code in ("en", "fr") for n in range(6)]
    found = [corpus_leaks.Leak(10 + n, n, "verbatim") for n in (0, 1)]
    entries = corpus_leaks.summary(pa.Table.from_pylist(rows), found, {10: "exam item"}, set(range(12)) - {5})
    path = tmp_path / corpus_leaks.SUMMARY_FILE
    write_json(path, {"exams": entries})
    return path


def test_accuracy_stands_with_and_without_leaked_items(report: Path) -> None:
    english, french, other = flagged(ITEMS, read_leaks(report))
    assert (english["exam"], english["language"], english["n"]) == ("e", "en", 6)
    assert (english["leaked"], english["translated"], english["too_short"]) == (2, 0, 1)
    assert (english["accuracy"], english["accuracy_leaked"], english["accuracy_clean"]) == (1 / 3, 1.0, 0.0)
    assert (french["leaked"], french["translated"]) == (0, 2)
    assert (french["accuracy"], french["accuracy_leaked"], french["accuracy_clean"]) == (1 / 6, 0.5, 0.0)
    assert (other["exam"], other["searched"], other["leaked"], other["accuracy_clean"]) == ("f", False, None, 1.0)


def test_a_row_stands_beside_each_score(report: Path) -> None:
    rows = {(r["exam"], r["language"]): r for r in scores(ITEMS) if r["level"] == "exam_language"}
    flags = {(r["exam"], r["language"]): r for r in flagged(ITEMS, read_leaks(report))}
    assert rows.keys() == flags.keys()
    for key, row in rows.items():
        assert (row["n"], row["accuracy"]) == (flags[key]["n"], flags[key]["accuracy"])


def test_without_leaks_clean_is_all() -> None:
    for row in flagged(ITEMS, []):
        assert (row["accuracy_clean"], row["accuracy_leaked"], row["searched"]) == (row["accuracy"], None, False)
        assert row["clean_low"] < row["accuracy_clean"] <= row["clean_high"]


@pytest.mark.parametrize("text", ["{}", "[]", '{"exams": [{"benchmark": "e"}]}', '{"exams": 1}', "x"])
def test_another_file_is_no_report(text: str, tmp_path: Path) -> None:
    (tmp_path / "leaks.json").write_text(text)
    with pytest.raises(DataError):
        read_leaks(tmp_path / "leaks.json")
