"""Scores with all that they are worth: one row per task, exam and language, language, family and tier.

Two means stand below: `micro` is the share of all items, `macro` the plain mean over languages, the
exams of one language pooled by item. Its languages are fixed and its questions drawn: the interval
resamples clusters over all languages at once and moves the mean by their influence on it.
"""

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.guessing import Constant, best_constant
from polyclinic.evaluate.statistics.marked import Marked, mark
from polyclinic.evaluate.statistics.significance import (
    CORRECTIONS,
    LEVEL,
    Tails,
    against_odds,
    clustered,
    holm,
    signs,
)
from polyclinic.families import fifty, majors
from polyclinic.intervals import (
    RESAMPLES,
    Floats,
    Interval,
    bootstrap,
    cluster_sums,
    middle,
    resampled,
    wilson,
)
from polyclinic.runs import write_bytes

Row = dict[str, Any]
ABOVE, UNCLEAR, BELOW = "above chance", "not distinguishable from chance", "below chance"
BEATS, BEATS_NOT = "above the best constant answer", "not above the best constant answer"
LISTED = ("task", "exam_language")  # levels that show derived exams, too


def scores(
    items: Sequence[Item],
    families: Mapping[str, str] | None = None,
    derived: Collection[str] = (),
    include_derived: bool = False,
    several: Collection[str] | None = None,
    seed: int = 0,
) -> list[Row]:
    """Return the rows of all levels, `macro` and `micro` last.

    `families` maps languages to family names. `derived` names exams that were made for lack of real
    ones: they have rows of their own, and count in no pooled row unless `include_derived`. `several`
    is as in `mark`. Raises DataError for items of which no score can be made.
    """
    marked = mark(items, several)
    pooled = [m for m in marked if include_derived or m.item.exam not in derived]
    rows: list[Row] = []
    for level, name in _levels(families).items():
        groups: dict[str, list[Marked]] = {}
        for m in marked if level in LISTED else pooled:
            groups.setdefault(name(m.item), []).append(m)
        rows += judged([row(level, key, groups[key], seed) for key in sorted(groups)])
    if pooled:
        rows += judged([macro(pooled, seed)]) + judged([row("micro", "all items", pooled, seed)])
    return rows


def _levels(families: Mapping[str, str] | None) -> dict[str, Callable[[Item], str]]:
    """Return for each level the name of the row that an item stands in."""

    def family(item: Item) -> str:
        if families is not None and item.language in families:
            return families[item.language]
        raise DataError("families", f"no family of language '{item.language}'", "add it to the families")

    levels: dict[str, Callable[[Item], str]] = {
        "task": lambda i: i.task,
        "exam_language": lambda i: f"{i.exam} {i.language}",
        "language": lambda i: i.language,
        "tier": lambda i: tier(i.language),
    }
    return {**levels, "family": family} if families is not None else levels


def tier(code: str) -> str:
    """Return how much text there is of a language, as the paper sorts them: major, minor, or beyond its fifty."""
    return _tiers().get(code, "beyond")


@cache
def _tiers() -> dict[str, str]:
    return {**dict.fromkeys(fifty(), "minor"), **dict.fromkeys(majors(), "major")}


def row(level: str, name: str, group: Sequence[Marked], seed: int) -> Row:
    """Return one row, without verdict."""
    right, clusters = [m.item.right for m in group], [m.cluster for m in group]
    score, boot = wilson(sum(right), len(group)), bootstrap(np.asarray(right, dtype=np.float64), clusters, seed)
    constant = best_constant(m.item.gold for m in group)
    differences = [int(r) - int(hit) for r, hit in zip(right, _hits(group, constant), strict=True)]
    return {
        **_named(level, name, group),
        **shares(group),
        "wilson_low": score.low,
        "wilson_high": score.high,
        "boot_low": boot.low,
        "boot_high": boot.high,
        "constant_answer": constant.letters,
        "several": sum(m.several for m in group),
        **_tests(against_odds(right, [m.odds for m in group], clusters), signs(differences, clusters)),
    }


def _named(level: str, name: str, group: Sequence[Marked]) -> Row:
    exams, codes = ({getattr(m.item, field) for m in group} for field in ("exam", "language"))
    return {
        "level": level,
        "name": name,
        "exam": min(exams) if len(exams) == 1 else "",
        "language": min(codes) if len(codes) == 1 else "",
        "languages": len(codes),
        "n": len(group),
        "clusters": len({m.cluster for m in group}),
    }


def shares(group: Sequence[Marked]) -> dict[str, float | None]:
    """Return what items score and what knowing nothing would; None where there is nothing to score.

    Unparsed answers are not right in `accuracy` and left out of `accuracy_parsed`. Hamming scores are
    those of exams with several right answers.
    """
    right, some = sum(m.item.right for m in group), [m for m in group if m.several]
    parsed = sum(m.item.picked is not None for m in group)
    return {
        "accuracy": right / len(group),
        "unparsed": 1 - parsed / len(group),
        "accuracy_parsed": right / parsed if parsed else None,
        "chance": sum(m.odds for m in group) / len(group),
        "constant": best_constant(m.item.gold for m in group).share,
        "hamming": _mean([m.hamming for m in some]),
        "hamming_chance": _mean([m.expected_hamming for m in some]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _hits(group: Sequence[Marked], constant: Constant) -> list[bool]:
    """Say where a constant answer is right."""
    return [set(m.item.gold) == set(constant.answer) for m in group]


def _tests(chance: Tails, constant: Tails) -> Row:
    return {"p_above": chance.above, "p_below": chance.below, "p": chance.doubled, "p_constant": constant.above}


def macro(group: Sequence[Marked], seed: int) -> Row:
    """Return the mean over languages as a row; baselines are means over languages, too."""
    parts: dict[str, list[Marked]] = {}
    for m in group:
        parts.setdefault(m.item.language, []).append(m)
    by_part = [shares(part) for part in parts.values()]
    means = {key: _mean([own[key] for own in by_part]) for key in by_part[0]}
    clusters = [m.cluster for part in parts.values() for m in part]

    def weighted(value: Callable[[Sequence[Marked]], Sequence[float]]) -> Floats:
        """Return values of all items, such that their sum is the mean over languages."""
        return np.concatenate([np.asarray(value(part)) / len(part) / len(parts) for part in parts.values()])

    def own_mean(part: Sequence[Marked]) -> list[float]:
        return [sum(m.item.right for m in part) / len(part)] * len(part)

    right, odds = weighted(lambda part: [m.item.right for m in part]), weighted(lambda part: [m.odds for m in part])
    constant = weighted(lambda part: _hits(part, best_constant(m.item.gold for m in part)))
    boot = influence_interval(float(right.sum()), right - weighted(own_mean), clusters, seed)
    tests = _tests(clustered(right - odds, clusters), clustered(right - constant, clusters))
    named = _named("macro", "mean over languages", group)
    bounds = {"boot_low": max(0.0, boot.low), "boot_high": min(1.0, boot.high)}  # a share, whatever moves it
    return {**named, **means, **bounds, **tests}


def influence_interval(mean: float, influence: Floats, clusters: Sequence[str], seed: int) -> Interval:
    """Return the interval of a mean that items move by their influence, clusters being drawn."""
    return middle(mean + resampled(cluster_sums(clusters, influence), RESAMPLES, seed)[:, 0])


def judged(rows: list[Row]) -> list[Row]:
    """Return the rows of one level with corrected p values and verdicts.

    Verdicts are by Holm's correction within the level, at 5 % over all rows and both directions.
    """
    for name, correction in CORRECTIONS.items():
        for found, value in zip(rows, correction([r["p"] for r in rows]), strict=True):
            found[name] = value
    for found, value in zip(rows, holm([r["p_constant"] for r in rows]), strict=True):
        above = found["p_above"] < found["p_below"]
        found["verdict"] = UNCLEAR if found["holm"] >= LEVEL else ABOVE if above else BELOW
        found["constant_verdict"] = BEATS if value < LEVEL else BEATS_NOT
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV; columns in the order in which they first appear, nothing where a row has none."""
    columns = list(dict.fromkeys(key for found in rows for key in found))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def write_tables(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write one CSV per level, `scores-LEVEL.csv`; returns the names."""
    names = []
    for level in dict.fromkeys(found["level"] for found in rows):
        names.append(f"scores-{level}.csv")
        write_bytes(folder / names[-1], as_csv([r for r in rows if r["level"] == level]).encode())
    return names
