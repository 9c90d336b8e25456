"""A tally as a file: numpy arrays only, so that reading one runs no code."""

import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from polyclinic.analyse.tally import Tally
from polyclinic.errors import DataError


def save_tally(path: Path, tally: Tally) -> None:
    """Write a tally as .npz; parts of a part are named `part.field`."""
    np.savez_compressed(path, allow_pickle=False, **_flat(tally, ""))


def _flat(part: Any, prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        name = prefix + field.name
        out |= _flat(value, f"{name}.") if is_dataclass(value) else {name: np.asarray(value)}
    return out


def load_tally(path: Path) -> Tally:
    """Read a tally; raises DataError for a file that is none."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            tally: Tally = _built(Tally, dict(stored), "")
    except (ValueError, KeyError, zipfile.BadZipFile) as err:
        raise DataError(path, "is no tally of routes", "write it again with polyclinic analyse run") from err
    return tally


def _built(kind: Any, stored: dict[str, Any], prefix: str) -> Any:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):
        name, hint = prefix + field.name, hints[field.name]
        if is_dataclass(hint):
            values[field.name] = _built(hint, stored, f"{name}.")
        elif hint in (int, str):
            values[field.name] = hint(stored[name])
        else:
            is_tuple = str(hint).startswith("tuple")
            values[field.name] = tuple(stored[name].tolist()) if is_tuple else stored[name]
    return kind(**values)
