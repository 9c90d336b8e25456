"""The suite as a terminal shows it: every exam, what it takes to run it, and the languages that have none."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyclinic.errors import DataError
from polyclinic.evaluate.suite import local, names, terms
from polyclinic.evaluate.suite.loading import load
from polyclinic.evaluate.suite.table import HERE, Exam, exams
from polyclinic.families import fifty

AVAILABLE, NEEDS_DATA = "here", f"needs {local.VARIABLE}"
NEEDS_HUB, IN_LM_EVAL = "needs the hub", "in lm-eval"
COLUMNS = ("exam", "questions", "options", "kind", "available", "licence", "languages")


def rows(codes: Iterable[str] | None = None, root: Path | None = None) -> list[dict[str, Any]]:
    """Return one row an exam that has one of the languages; questions are counted where its files are here."""
    wanted = None if codes is None else names.codes(codes)
    picked = ((e, [c for c in e.languages if wanted is None or c in wanted]) for e in exams().values())
    return [_row(exam, languages, root) for exam, languages in picked if languages]


def _row(exam: Exam, languages: Sequence[str], root: Path | None) -> dict[str, Any]:
    counts = {code: _count(exam, code, root) for code in languages} if exam.kind in HERE else {}
    counted = [n for n in counts.values() if n is not None]
    away = NEEDS_HUB if exam.kind == "hub" else IN_LM_EVAL
    fewest, most = exam.options
    return {
        "exam": exam.name,
        "title": exam.title,
        "questions": sum(counted) if counted else None,
        "by_language": counts,
        "options": str(most) if fewest == most else f"{fewest}-{most}",
        "several": exam.several,
        "kind": exam.kind,
        "available": (AVAILABLE if counted else NEEDS_DATA) if exam.kind in HERE else away,
        "licence": exam.licence,
        "domain": exam.domain,
        "paper": exam.paper,
        "verified": exam.verified,
        "languages": list(languages),
        "note": exam.note,
    }


def _count(exam: Exam, code: str, root: Path | None) -> int | None:
    """Return how many questions would be scored, or None where the exam's file is not here."""
    try:
        folder = local.data_folder(root)
    except DataError:
        return None
    if not (folder / local.file_of(exam, code)).is_file():
        return None
    if exam.derived:  # without drawing wrong answers for each
        return max(0, len(terms.usable(terms.terms(exam, code, root), Counter())) - exam.pool)
    return len(load(exam, code, root).questions)


def missing(found: Sequence[Mapping[str, Any]], codes: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return which of the languages (the paper's fifty when left out) have no exam here, and none at all."""
    asked = names.codes(codes) if codes is not None else list(fifty())
    here = {code for row in found if row["available"] == AVAILABLE for code in row["languages"]}
    some = {code for row in found for code in row["languages"]}
    return {"not here": [c for c in asked if c not in here], "nowhere": [c for c in asked if c not in some]}


def lines(found: Sequence[Mapping[str, Any]], lacking: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the table as text, and below it the languages without an exam."""
    table = [list(COLUMNS), *([_cell(row, column) for column in COLUMNS] for row in found)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    right = COLUMNS.index("questions")
    shown = [
        "  ".join(c.rjust(w) if i == right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in table
    ]
    text = {"not here": "without an exam that is here", "nowhere": "without any exam"}
    return [*(line.rstrip() for line in shown), "", *(f"{text[key]}: {', '.join(lacking[key]) or '-'}" for key in text)]


def _cell(row: Mapping[str, Any], column: str) -> str:
    """Return what one column shows; a star stands where several answers may be right."""
    if column == "languages":
        return " ".join(row[column])
    if column == "options":
        return f"{row[column]}{'*' * row['several']}"
    return "-" if row[column] is None else f"{row[column]:,}" if column == "questions" else str(row[column])
