"""The n-gram model: scores are whole numbers by the formula, files say when they are damaged."""

import math
from pathlib import Path

import numpy as np
import pytest

from polyclinic.corpus.identify.letters import letters
from polyclinic.corpus.identify.ngrams import MAGIC, MOST, ORDERS, Model, load, read
from polyclinic.errors import DataError

BITS = 10


@pytest.fixture
def model() -> Model:
    weights = np.random.default_rng(0).integers(-127, 128, (1 << BITS, 3), dtype=np.int8)
    return Model(("en", "ru", "th"), {"en": ["Latn"], "ru": ["Cyrl"], "th": ["Thai"]}, 40, weights)


def hashed(text: str) -> list[int]:
    """Hash n-grams one by one with Python's whole numbers."""
    points = letters(text)[0].tolist()
    out = []
    for order in range(1, ORDERS + 1):
        for start in range(len(points) - order + 1):
            gram = 0
            for point in points[start : start + order]:
                gram = (gram * 0x85EBCA6B + point) % 2**32
            mixed = (gram + order * 0x27D4EB2F) * 0x9E3779B1 % 2**32
            out.append(((mixed ^ (mixed >> 15)) * 0xC2B2AE35 % 2**32) >> (32 - BITS))
    return out


@pytest.mark.parametrize("text", ["Fever and a cough.", "Лихорадка", "ไข้", "𠮷a", "x", ""])
def test_rows_are_the_hashed_runs_of_one_to_four_characters(text: str) -> None:
    assert read(text, BITS).tolist() == hashed(text)


@pytest.mark.parametrize("text", ["Fever and a cough.", "a" * 3000, "1", ""])
def test_scores_are_sums_over_the_root_of_their_number_in_thousandths(model: Model, text: str) -> None:
    rows = read(text, BITS)
    sums = model.weights.astype(np.int64)[rows].sum(0)
    exact = [1000 * int(s) / (model.scale * math.sqrt(len(rows))) for s in sums]
    assert np.allclose(model.scores(rows), exact, rtol=1e-4, atol=1)
    assert all(type(score) is int for score in model.scores(rows))


def test_the_order_of_the_sum_does_not_matter(model: Model) -> None:
    rows = read("Drink much water and rest. " * 80, BITS)
    assert model.scores(rows) == model.scores(rows[::-1]) == model.scores(np.sort(rows))


def test_a_sum_of_the_largest_weights_is_exact() -> None:
    largest = Model(("en", "de"), {"en": [], "de": []}, 1, np.full((256, 2), 127, dtype=np.int8))
    rows = np.zeros(MOST, dtype=np.int64)
    assert largest.scores(rows)[0] == 127 * MOST * 10**6 // math.isqrt(MOST * 10**6)


def test_a_saved_model_comes_back_whole(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.bin")
    again = load(tmp_path / "m.bin")
    assert (again.labels, again.scripts, again.scale, again.bits) == (model.labels, model.scripts, 40, BITS)
    assert np.array_equal(again.weights, model.weights)


@pytest.mark.parametrize("damage", ["no file", "other file", "cut", "longer", "labels", "no json", "scale"])
def test_a_damaged_model_is_refused(model: Model, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.bin"
    model.save(path)
    good = path.read_bytes()
    bad = {
        "other file": b"PK\x03\x04" + good,
        "cut": good[:-1],
        "longer": good + b"\0",
        "labels": good.replace(b'"labels": ["en", ', b'"labels": ['),
        "no json": MAGIC + b"{\n" + good,
        "scale": good.replace(b'"scale": 40', b'"scale": 00'),
    }
    path.unlink() if damage == "no file" else path.write_bytes(bad[damage])
    with pytest.raises(DataError, match=r"m\.bin"):
        load(path)
