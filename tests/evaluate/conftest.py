"""A small dense model and mixture to be examined, and exams in four languages."""

from pathlib import Path

import numpy as np
import pytest

import small
from polyclinic.records import Question


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("evaluate")
    (root / "vocabulary").mkdir()
    dense = small.dense(root / "dense", small.tokenizer(root / "vocabulary"))
    return {"base": dense, "mixture": small.mixture(root / "mixture", dense)}


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    """Two exams; options of all lengths, numbers and scripts; every seventh question has two answers."""
    draw = np.random.default_rng(0)
    words = [turn.content for document in small.documents(12) for turn in document.turns]
    out = []
    for number in range(40):
        options = tuple(dict.fromkeys(draw.choice(words, draw.integers(3, 6)).tolist()))
        answers = (0, 1) if number % 7 == 6 else (int(draw.integers(len(options))),)
        source, language = f"exam-{number % 2}", small.LANGUAGES[number // 2 % 4]
        question = str(draw.choice(words))
        context = str(draw.choice(words)) if number % 3 == 0 else ""
        values = (source, "CC0-1.0", str(number), "test", question, options, answers, context)
        out.append(Question(f"q{number}", language, *values))
    return out
