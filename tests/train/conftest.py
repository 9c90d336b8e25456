"""A small tokenizer, dense and mixture checkpoints and packs, made once."""

import gc
from pathlib import Path

import pytest

import small


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> None:
    """Trainers collect garbage as they begin; what imports made need not be looked through each time."""
    gc.freeze()


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def mixtures(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Upcycled checkpoints by the kind of their dense parent."""
    root = tmp_path_factory.mktemp("mixtures")
    kinds = ("qwen2", "qwen3")
    return {kind: small.mixture(root / kind, small.dense(root / f"{kind}-dense", vocabulary, kind)) for kind in kinds}


@pytest.fixture(scope="session")
def packed(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.packs(tmp_path_factory.mktemp("packed") / "packs", vocabulary)
