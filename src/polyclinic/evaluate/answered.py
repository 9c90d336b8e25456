"""What a run of evaluate left behind: the items that one model answered, and under which protocol."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.runs import read_json

SCORES = "scores.json"
PREFIX, SUFFIX = "items-", ".jsonl"
_TEXTS = ("task", "exam", "language", "id", "group")


class Answered(NamedTuple):
    """Items of one model, named as it was asked for, and the protocol; None where the run names none."""

    name: str
    folder: Path
    items: list[Item]
    protocol: dict[str, Any] | None


def read_answered(name: str) -> Answered:
    """Return what FOLDER or FOLDER:SHEET holds; the folder of a run, or its step `evaluate`.

    Raises DataError where there is no such folder or model, or more than one to choose from.
    """
    place, model = (Path(name), "") if Path(name).is_dir() else _split(name)
    folder = next((f for f in (place, place / "evaluate") if (f / SCORES).is_file()), None)
    if folder is None:
        raise DataError(place, f"holds no {SCORES} of evaluate run", "name what --out of evaluate run named")
    models = sorted(p.name[len(PREFIX) : -len(SUFFIX)] for p in folder.glob(f"{PREFIX}*{SUFFIX}"))
    if model not in models and (model or len(models) != 1):
        listed = ", ".join(f"{place}:{m}" for m in models) or "run evaluate again"
        what = f"has no sheet '{model}'" if model else f"holds {len(models)} sheets"
        raise DataError(place, what, f"name one: {listed}" if models else listed)
    chosen = model or models[0]
    return Answered(name, folder, read_items(folder / f"{PREFIX}{chosen}{SUFFIX}"), _protocol(folder, chosen))


def _split(name: str) -> tuple[Path, str]:
    place, colon, model = name.rpartition(":")
    return (Path(place), model) if colon else (Path(name), "")


def _protocol(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the protocol of one sheet; None where the file does not say."""
    scores = read_json(folder / SCORES)
    sheets = scores.get("sheets") if isinstance(scores, dict) else None
    named = (one for one in sheets or () if isinstance(one, dict) and one.get("name") == name)
    found = next(named, {}).get("protocol")
    return found if isinstance(found, dict) else None


def read_items(path: Path) -> list[Item]:
    """Return the items of a file, one JSON object a line; raises DataError naming the line that is none."""
    items = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                items.append(_item(line, path, number))
    except UnicodeDecodeError as err:
        raise DataError(path, "is not UTF-8", "run evaluate again") from err
    return items


def _item(line: str, path: Path, number: int) -> Item:
    try:
        found = Item(**json.loads(line))
        picked = None if found.picked is None else _places(found.picked)
        item = found._replace(gold=_places(found.gold), picked=picked, scores=tuple(map(float, found.scores)))
        if all(isinstance(getattr(item, field), str) for field in _TEXTS) and isinstance(item.options, int):
            return item
    except (ValueError, TypeError, RecursionError):
        pass
    raise DataError(f"{path} line {number}", "is no item of this version", "run evaluate again")


def _places(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise TypeError
    return tuple(values)


def protocol_differences(a: Answered, b: Answered) -> list[str]:
    """Return in words where the protocols of two runs differ; a run that names none differs in that."""
    ours, theirs = a.protocol, b.protocol
    if ours is None or theirs is None:
        return [f"{one.name} names none" for one in (a, b) if one.protocol is None]
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return [f"{key} {json.dumps(ours.get(key))} and {json.dumps(theirs.get(key))}" for key in keys]
