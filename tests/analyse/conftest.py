"""A small mixture with experts apart, and texts to route through it."""

from pathlib import Path

import pytest

import small


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("analyse")
    (root / "vocabulary").mkdir()
    dense = small.dense(root / "dense", small.tokenizer(root / "vocabulary"))
    return small.mixture(root / "mixture", dense)
