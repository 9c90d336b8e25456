"""Records of exams and of terms in the schema of the local files, which tests of the suite share."""

import json
from pathlib import Path
from typing import Any

from polyclinic.evaluate.suite.table import Exam

LETTERS = "ABCDE"
SCORED, SHOWN, TERMS = 12, 4, 26
ENGLISH = [
    "fever", "cough", "nausea", "rash", "wound", "lung", "heart", "kidney", "liver", "brain", "muscle", "bone", "skin",
    "eye", "ear", "nose", "throat", "stomach",
]  # fmt: skip


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), "utf-8")
    return path


def rows(exam: Exam, code: str) -> list[dict[str, Any]]:
    """Return the records of an exam in one language; where one exam may have several answers, some have."""
    splits = [(exam.split, SCORED + exam.pool), *((split, SHOWN) for split in exam.shots)]
    return [row(exam, code, split, number) for split, count in splits for number in range(count)]


def row(exam: Exam, code: str, split: str, number: int, **changes: Any) -> dict[str, Any]:
    """Return one record; its answer moves through the options."""
    options = {letter: f"{letter.lower()} {split} {number} of {code}" for letter in LETTERS[: exam.options[1]]}
    answer: Any = LETTERS[number % exam.options[1]]
    if exam.several and number % 2:
        answer = sorted({answer, "A"})
    made = {"id": f"{exam.name}:{code}-{split}-{number}", "source": exam.name, "language": code, "split": split}
    made |= {"question": f"what is {split} {number} in {code}", "options": options, "answer": answer}
    made |= {"licence": "CC0-1.0", "parallel_id": f"{exam.name}:{split}-{number}"}
    if exam.fields.context:
        made["context"] = f"a passage about {number}"
    return {**made, **changes}


def term_rows(code: str) -> list[dict[str, Any]]:
    """Return a list of terms in a language: words of letters that no other word of it has in that order."""
    out = []
    for number in range(TERMS):
        english = f"{ENGLISH[number % len(ENGLISH)]}{'' if number < len(ENGLISH) else 'itis'}"
        said = english if code == "en" else f"{english[::-1]}{code}{number}"
        made = {"id": f"tico19-terms:{number}", "source": "tico19-terms", "language": code, "text": said}
        out.append({**made, "licence": "CC0-1.0", "parallel_id": f"terms:{number}", "kind": "term"})
    return [{**out[0], "source": "udhr", "text": "a sentence that is no term"}, *out]
