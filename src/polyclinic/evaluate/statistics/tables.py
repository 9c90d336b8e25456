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
from polyclinic.evaluate.statistics.intervals import (
    RESAMPLES,
    Floats,
    bootstrap,
    cluster_sums,
    middle,
    resampled,
    wilson,
)
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


@cache
def tier(code: str) -> str:
    """Return how much text there is of a language, as the paper sorts them: major, minor, or beyond its fifty."""
    if code in majors():
        return "major"
    return "minor" if code in fifty() else "beyond"


def row(level: str, name: str, group: Sequence[Marked], seed: int) -> Row:
    """Return one row, without verdict; unparsed answers are not right, and are left out of `accuracy_parsed`."""
    right, clusters = [m.item.right for m in group], [m.cluster for m in group]
    parsed = sum(m.item.picked is not None for m in group)
    constant = best_constant(m.item.gold for m in group)
    score, boot = wilson(sum(right), len(group)), bootstrap(np.asarray(right, dtype=np.float64), clusters, seed)
    return {
        **_named(level, name, group),
        "accuracy": sum(right) / len(group),
        "wilson_low": score.low,
        "wilson_high": score.high,
        "boot_low": boot.low,
        "boot_high": boot.high,
        "unparsed": 1 - parsed / len(group),
        "accuracy_parsed": sum(right) / parsed if parsed else None,
        "chance": sum(m.odds for m in group) / len(group),
        "constant": constant.share,
        "constant_answer": constant.letters,
        **_several(group),
        **_tests(against_odds(right, [m.odds for m in group], clusters), _beyond(group, constant)),
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


def _several(group: Sequence[Marked]) -> Row:
    """Return the Hamming score of the exams with several right answers, and what guessing would score."""
    some = [m for m in group if m.several]
    if not some:
        return {"several": 0, "hamming": None, "hamming_chance": None}
    hit, luck = (
        sum(values) / len(some) for values in zip(*((m.hamming, m.expected_hamming) for m in some), strict=True)
    )
    return {"several": len(some), "hamming": hit, "hamming_chance": luck}


def _beyond(group: Sequence[Marked], constant: Constant) -> float:
    """Return the p value of having more items right than the best constant answer, by sign test."""
    hits = [set(m.item.gold) == set(constant.answer) for m in group]
    differences = [int(m.item.right) - int(hit) for m, hit in zip(group, hits, strict=True)]
    return signs(differences, [m.cluster for m in group]).above


def _tests(tails: Tails, constant: float) -> Row:
    return {"p_above": tails.above, "p_below": tails.below, "p": tails.doubled, "p_constant": constant}


def macro(group: Sequence[Marked], seed: int) -> Row:
    """Return the mean over languages as a row; baselines are means over languages, too."""
    codes = sorted({m.item.language for m in group})
    parts = {code: [m for m in group if m.item.language == code] for code in codes}
    alone = [row("", code, part, seed) for code, part in parts.items()]
    means: Row = {key: _mean([r[key] for r in alone]) for key in MEANS}
    parted = [m for part in parts.values() for m in part]
    clusters = [m.cluster for m in parted]
    weights = np.concatenate([np.full(len(part), 1 / len(part) / len(parts)) for part in parts.values()])
    own = np.repeat([r["accuracy"] for r in alone], [r["n"] for r in alone])
    right, odds = (
        np.array([float(value) for value in column])
        for column in zip(*((m.item.right, m.odds) for m in parted), strict=True)
    )
    low, high = influence_interval(means["accuracy"], weights * (right - own), clusters, seed)
    hits = _constant_hits(parts)
    tests = _tests(clustered(weights * (right - odds), clusters), clustered(weights * (right - hits), clusters).above)
    return {**_named("macro", "mean over languages", group), **means, "boot_low": low, "boot_high": high, **tests}


MEANS = ("accuracy", "unparsed", "accuracy_parsed", "chance", "constant", "hamming", "hamming_chance")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _constant_hits(parts: Mapping[str, Sequence[Marked]]) -> Floats:
    """Return where each language's best constant answer is right."""
    hits = []
    for part in parts.values():
        best = set(best_constant(m.item.gold for m in part).answer)
        hits += [float(set(m.item.gold) == best) for m in part]
    return np.array(hits)


def influence_interval(mean: float, influence: Floats, clusters: Sequence[str], seed: int) -> tuple[float, float]:
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
