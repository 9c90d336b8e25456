"""Two models on the same questions: paired differences, exact tests per language, wins and losses.

Differences are those of A less B, on items that both answered; the intervals of two models alone say
nothing about their difference.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics.marked import check, clusters_of
from polyclinic.evaluate.statistics.significance import CORRECTIONS, LEVEL, clustered, mcnemar, signs
from polyclinic.evaluate.statistics.tables import influence_interval
from polyclinic.intervals import Floats, bootstrap

Row = dict[str, Any]
A_BETTER, B_BETTER, UNSHOWN = "A better", "B better", "no difference shown"


class Pair(NamedTuple):
    """One question as both answered it."""

    cluster: str
    language: str
    a: bool
    b: bool

    @property
    def difference(self) -> int:
        """Return 1 where only A is right, -1 where only B is."""
        return int(self.a) - int(self.b)


def compare(a_items: Sequence[Item], b_items: Sequence[Item], seed: int = 0) -> Row:
    """Return rows per language, `micro` over items, `macro` over languages, and what only one of two holds.

    McNemar's test ignores clusters; within a language they hardly matter. The p value of `micro` and
    `macro` heeds them. Raises DataError where nothing is shared or the two disagree on a question.
    """
    check(a_items, "A")
    check(b_items, "B")
    pairs = paired(a_items, b_items)
    codes = sorted({pair.language for pair in pairs})
    rows = judged([row(code, [p for p in pairs if p.language == code], seed) for code in codes])
    micro = row("all items", pairs, seed)
    p = signs([pair.difference for pair in pairs], [pair.cluster for pair in pairs]).doubled
    micro |= {"p": p, "verdict": _verdict(micro["difference"], p)}
    return {
        "languages": rows,
        "micro": micro,
        "macro": macro(pairs, rows, seed),
        **counted(rows),
        "only_a": alone(a_items, b_items),
        "only_b": alone(b_items, a_items),
    }


def paired(a_items: Sequence[Item], b_items: Sequence[Item]) -> list[Pair]:
    """Return what both answered, matched by task and id."""
    others = {(i.task, i.id): i for i in b_items}
    shared = [(i, others[i.task, i.id]) for i in a_items if (i.task, i.id) in others]
    if not shared:
        raise DataError("compare", "A and B have no question in common", "ask both the same exams")
    for a, b in shared:
        if (sorted(a.gold), a.options, a.language) != (sorted(b.gold), b.options, b.language):
            what = f"A and B do not mean the same by item {a.id} of {a.task}"
            raise DataError("compare", what, "ask both the same version of the exam")
    clusters = clusters_of([a for a, _ in shared])
    return [Pair(c, a.language, a.right, b.right) for c, (a, b) in zip(clusters, shared, strict=True)]


def alone(items: Sequence[Item], others: Sequence[Item]) -> dict[str, list[str]]:
    """Return the ids of items that the others lack, by task."""
    known = {(i.task, i.id) for i in others}
    out: dict[str, list[str]] = {}
    for i in items:
        if (i.task, i.id) not in known:
            out.setdefault(i.task, []).append(i.id)
    return {task: sorted(out[task]) for task in sorted(out)}


def row(name: str, pairs: Sequence[Pair], seed: int) -> Row:
    """Return one row, without corrections."""
    differences = [pair.difference for pair in pairs]
    clusters = [pair.cluster for pair in pairs]
    wins, losses = differences.count(1), differences.count(-1)
    low, high = bootstrap(np.asarray(differences, dtype=np.float64), clusters, seed)
    return {
        "name": name,
        "n": len(pairs),
        "clusters": len(set(clusters)),
        "a": sum(pair.a for pair in pairs) / len(pairs),
        "b": sum(pair.b for pair in pairs) / len(pairs),
        "difference": (wins - losses) / len(pairs),
        "low": low,
        "high": high,
        "wins": wins,
        "losses": losses,
        "ties": len(pairs) - wins - losses,
        "mcnemar": mcnemar(wins, losses),
    }


def judged(rows: list[Row]) -> list[Row]:
    """Return rows with corrected p values, and verdicts by Holm's."""
    for name, correction in CORRECTIONS.items():
        for found, value in zip(rows, correction([r["mcnemar"] for r in rows]), strict=True):
            found[name] = value
    for found in rows:
        found["verdict"] = _verdict(found["difference"], found["holm"])
    return rows


def _verdict(difference: float, p: float) -> str:
    if p >= LEVEL:
        return UNSHOWN
    return A_BETTER if difference > 0 else B_BETTER


def macro(pairs: Sequence[Pair], rows: Sequence[Row], seed: int) -> Row:
    """Return the mean difference over languages; interval and p value by clusters over all of them."""
    means: Mapping[str, float] = {k: sum(r[k] for r in rows) / len(rows) for k in ("a", "b", "difference")}
    by_code = {r["name"]: r for r in rows}
    weights: Floats = np.array([1 / by_code[pair.language]["n"] / len(rows) for pair in pairs])
    own = np.array([by_code[pair.language]["difference"] for pair in pairs])
    differences, clusters = np.array([pair.difference for pair in pairs]), [pair.cluster for pair in pairs]
    low, high = influence_interval(means["difference"], weights * (differences - own), clusters, seed)
    p = clustered(weights * differences, clusters).doubled
    named = {"name": "mean over languages", "n": len(pairs), "clusters": len(set(clusters))}
    return {**named, **means, "low": low, "high": high, "p": p, "verdict": _verdict(means["difference"], p)}


def counted(rows: Sequence[Row]) -> Row:
    """Return in how many languages A has more right, B has, or both have as many; and where that is shown."""
    signs_of = [(r["wins"] > r["losses"]) - (r["wins"] < r["losses"]) for r in rows]
    verdicts = [r["verdict"] for r in rows]
    return {
        "wins": signs_of.count(1),
        "losses": signs_of.count(-1),
        "ties": signs_of.count(0),
        "shown_wins": verdicts.count(A_BETTER),
        "shown_losses": verdicts.count(B_BETTER),
    }
