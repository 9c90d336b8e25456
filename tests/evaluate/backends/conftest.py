"""Requests of all kinds, and what lm-eval's own class says to them."""

from pathlib import Path

import pytest
from asking import choices, obvious, stock
from lm_eval.api.instance import Instance

from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.records import Question


@pytest.fixture(scope="session")
def asked(models: dict[str, Path], questions: list[Question]) -> list[Instance]:
    return [*choices(questions[:16]), *obvious(models["mixture"], questions), *obvious(models["base"], questions)]


@pytest.fixture(scope="session")
def said(models: dict[str, Path], asked: list[Instance]) -> dict[str, list[tuple[float, bool]]]:
    """What lm-eval's own class says, by model."""
    return {name: stock(path).loglikelihood(asked, disable_tqdm=True) for name, path in models.items()}


@pytest.fixture(scope="session")
def hybrid(models: dict[str, Path]) -> LocalModel:
    return LocalModel(models["mixture"], route="hybrid")
