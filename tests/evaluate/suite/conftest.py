"""Small copies of the local exams, in the schema of the files themselves, for every exam and language of the table."""

import os
from pathlib import Path

import pytest

from exam_files import rows, term_rows, write
from polyclinic.evaluate.suite.table import exams


@pytest.fixture(scope="session")
def real() -> Path:
    """Give the folder of the real data, or skip."""
    if not os.environ.get("POLYCLINIC_DATA"):
        pytest.skip("POLYCLINIC_DATA is not set")
    return Path(os.environ["POLYCLINIC_DATA"])


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder like POLYCLINIC_DATA: every local exam in all its languages, and lists of terms."""
    root = tmp_path_factory.mktemp("exam-data")
    for exam in exams().values():
        if exam.kind == "local":
            write(root / exam.file, [row for code in exam.languages for row in rows(exam, code)])
        if exam.kind == "derived":
            for code in ["en", *exam.languages]:
                write(root / f"text/{code}.jsonl", term_rows(code))
    return root


@pytest.fixture
def data(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name the small copies as POLYCLINIC_DATA."""
    monkeypatch.setenv("POLYCLINIC_DATA", str(small_data))
    return small_data
