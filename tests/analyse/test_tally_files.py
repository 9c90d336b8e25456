"""A tally comes back from its file as it was, and reading one runs nothing."""

import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyclinic.analyse.counting import Batch, Counts, Text
from polyclinic.analyse.sampling import Sample
from polyclinic.analyse.tally import Tally
from polyclinic.analyse.tally_files import load_tally, save_tally
from polyclinic.errors import DataError


def made() -> Tally:
    import torch

    from polyclinic.analyse.capture import Call

    counts = Counts([1, 4], 3, ["en", "zh"], [0, -1], sample=Sample(2, 2, 99))
    texts = [Text("a", 0, 3, 9, [5, 6, 5, 5, 5, 5, 5], [True] * 7), Text("b", 1, 64, 8, [5] * 7, [True] * 7)]
    counts.begin(Batch(texts, 7))
    for position in range(2):
        picks = torch.tensor([[position, 2]]).expand(14, 2)
        counts.see(position, Call(picks, torch.tensor([[0.7, 0.3]]).expand(14, 2), None))
    counts.end()
    return counts.tally()


def same(one: Any, other: Any) -> bool:
    assert type(one) is type(other)
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype == float)
    return bool(one == other)


def test_a_tally_comes_back_as_it_was(tmp_path: Path) -> None:
    tally = made()
    save_tally(tmp_path / "a.npz", tally)
    assert same(load_tally(tmp_path / "a.npz"), tally)
    assert tally.shared.ids_M.tolist() == [5, 6]
    save_tally(tmp_path / "b.npz", tally)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_no_array_is_pickled_and_a_pickled_one_is_refused(tmp_path: Path) -> None:
    save_tally(tmp_path / "a.npz", made())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        values = dict(stored)
    values["layers"] = np.array([1, "x", None], dtype=object)
    np.savez(tmp_path / "bad.npz", **values)
    with pytest.raises(DataError, match="is no tally"):
        load_tally(tmp_path / "bad.npz")


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", layers=np.arange(3))
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    (tmp_path / "text.npz").write_text("no arrays", "utf-8")
    for name in ("other", "empty", "text"):
        with pytest.raises(DataError, match="is no tally of routes"):
            load_tally(tmp_path / f"{name}.npz")
