"""Scores with and without the questions that stood in the training text, by the corpus' report of leaks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.marked import clusters_of
from polyclinic.intervals import wilson
from polyclinic.runs import read_json

REPORT = "leaks.json"


def read_leaks(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a corpus' `leaks.json`; raises DataError if it is none."""
    data = read_json(path)
    entries = data.get("exams") if isinstance(data, dict) else None
    needed = {"benchmark", "language", "too_short", "leaked_ids"}
    if not isinstance(entries, list) or not all(isinstance(e, dict) and needed <= e.keys() for e in entries):
        raise DataError(path, "is no report of leaks", f"name the {REPORT} of a built corpus")
    return entries


def leaks_of(corpus: Path) -> list[dict[str, Any]] | None:
    """Return the report of a built corpus, None where its text was not searched for exams."""
    path = corpus / REPORT
    return read_leaks(path) if path.is_file() else None


def flagged(items: Sequence[Item], leaks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per exam and language: accuracy of all, of leaked and of clean items.

    `translated` counts items of which only a translation leaked; they are not clean. `searched` is
    false where the corpus was never searched for the exam: then nothing is known, and `leaked` is None.
    `too_short` items could not be looked for and count as clean.
    """
    known = {(e["benchmark"], e["language"]): e for e in leaks}
    direct = {(*key, str(id_)) for key, e in known.items() for id_ in e["leaked_ids"]}
    clusters = clusters_of(items)
    spread = {c for i, c in zip(items, clusters, strict=True) if (i.exam, i.language, i.id) in direct}
    groups: dict[tuple[str, str], list[tuple[Item, bool, bool]]] = {}
    for i, c in zip(items, clusters, strict=True):
        leaked = (i.exam, i.language, i.id) in direct
        groups.setdefault((i.exam, i.language), []).append((i, leaked, not leaked and c in spread))
    return [_row(key, groups[key], known.get(key)) for key in sorted(groups)]


def _row(
    key: tuple[str, str], group: Sequence[tuple[Item, bool, bool]], entry: dict[str, Any] | None
) -> dict[str, Any]:
    everything = [i for i, _, _ in group]
    touched = [i for i, leaked, translated in group if leaked or translated]
    clean = [i for i, leaked, translated in group if not leaked and not translated]
    interval = wilson(sum(i.right for i in clean), len(clean))
    return {
        "exam": key[0],
        "language": key[1],
        "n": len(group),
        "searched": entry is not None,
        "too_short": entry["too_short"] if entry else None,
        "leaked": sum(leaked for _, leaked, _ in group) if entry else None,
        "translated": sum(translated for _, _, translated in group),
        "accuracy": _accuracy(everything),
        "accuracy_leaked": _accuracy(touched),
        "accuracy_clean": _accuracy(clean),
        "clean_low": interval.low,
        "clean_high": interval.high,
    }


def _accuracy(items: Sequence[Item]) -> float | None:
    return sum(i.right for i in items) / len(items) if items else None
