"""How often intervals hold the truth and corrected tests find what is not there: simulated models, fixed seeds.

`python benchmarks/score_statistics.py` takes about seven minutes on one core.
"""

import time
from collections.abc import Iterable

import numpy as np

from polyclinic.evaluate.items import Item
from polyclinic.evaluate.statistics import comparison, tables
from polyclinic.evaluate.statistics.calibration import Predictions, binned, error
from polyclinic.evaluate.statistics.marked import mark
from polyclinic.evaluate.statistics.significance import LEVEL, against_odds, mcnemar
from polyclinic.intervals import bootstrap, wilson

TIMES = 2000
GUESS = 0.25  # chance of guessing an item with four options
TRUE, ALIKE = 0.4, 0.7  # accuracy; share of a cluster's items that share their fate
SKILL = {"en": 0.7, "fr": 0.5, "sw": 0.3}
MEAN = 0.5
A_RIGHT, B_RIGHT, B_ALONE, DIFFERENCE = 0.6, 0.5, 0.05, 0.05


def item(number: int, right: bool, language: str = "en", group: str | None = None) -> Item:
    gold = (number % 4,)
    picked = gold if right else ((number + 1) % 4,)
    return Item(f"e_{language}", "e", language, str(number), group or f"{language} {number}", 4, gold, picked)


def share(values: Iterable[bool]) -> str:
    values = list(values)
    return f"{100 * sum(values) / len(values):5.1f} %"


def wilson_coverage(n: int) -> str:
    draw = np.random.default_rng(1)
    truths = draw.uniform(0.1, 0.9, 50_000)
    bounds = [wilson(int(k), n) for k in draw.binomial(n, truths)]
    return share(low <= p <= high for p, (low, high) in zip(truths, bounds, strict=True))


def bootstrap_coverage(clusters: int, size: int, clustering: bool) -> str:
    draw, names = np.random.default_rng(2), [str(n // size) for n in range(clusters * size)]
    names = names if clustering else [str(n) for n in range(clusters * size)]
    held = []
    for seed in range(TIMES):
        own, common = draw.random((clusters, size)) < TRUE, draw.random((clusters, 1)) < TRUE
        values = np.where(draw.random((clusters, size)) < ALIKE, common, own).ravel().astype(float)
        low, high = bootstrap(values, names, seed)
        held.append(low <= TRUE <= high)
    return share(held)


def macro_coverage(shared: bool, scale: int) -> str:
    draw, held = np.random.default_rng(3), []
    sizes = {"en": 12 * scale, "fr": 6 * scale, "sw": 3 * scale}
    for seed in range(TIMES):
        luck, items = draw.random(12 * scale), []
        for code, size in sizes.items():
            own = luck[:size] if shared else draw.random(size)
            items += [item(n, own[n] < SKILL[code], code, f"g {n}" if shared else None) for n in range(size)]
        found = tables.macro(mark(items), seed)
        held.append(found["boot_low"] <= MEAN <= found["boot_high"])
    return share(held)


def paired_coverage(n: int) -> str:
    draw, held = np.random.default_rng(4), []
    for seed in range(TIMES):
        luck = draw.random(n)
        pairs = [
            comparison.Pair(str(k), "en", bool(u < A_RIGHT), bool(u < B_RIGHT or u > 1 - B_ALONE))
            for k, u in enumerate(luck)
        ]
        found = comparison.row("en", pairs, seed)
        held.append(found["low"] <= DIFFERENCE <= found["high"])
    return share(held)


def false_against_chance(languages: int, n: int) -> dict[str, str]:
    draw, found = np.random.default_rng(5), {"none": [], "holm": [], "bh": []}
    names, odds = [str(k) for k in range(n)], [GUESS] * n
    known = {}  # p values by number of right answers
    for _ in range(TIMES):
        rows = []
        for k in draw.binomial(n, GUESS, languages).tolist():
            known.setdefault(k, against_odds([True] * k + [False] * (n - k), odds, names))
            tails = known[k]
            rows.append({"p": tails.doubled, "p_above": tails.above, "p_below": tails.below, "p_constant": 1.0})
        rows = tables.judged(rows)
        found["none"].append(any(r["p"] < LEVEL for r in rows))
        for name in ("holm", "bh"):
            found[name].append(any(r[name] < LEVEL for r in rows))
    return {name: share(values) for name, values in found.items()}


def false_between_models(languages: int, n: int) -> dict[str, str]:
    draw, found = np.random.default_rng(6), {"none": [], "holm": [], "bh": []}
    for _ in range(TIMES):
        signs = draw.choice([-1, 0, 1], p=[0.25, 0.5, 0.25], size=(languages, n))
        counts = zip((signs > 0).sum(axis=1).tolist(), (signs < 0).sum(axis=1).tolist(), strict=True)
        rows = comparison.judged([{"difference": w - b, "mcnemar": mcnemar(w, b)} for w, b in counts])
        found["none"].append(any(r["mcnemar"] < LEVEL for r in rows))
        for name in ("holm", "bh"):
            found[name].append(any(r[name] < LEVEL for r in rows))
    return {name: share(values) for name, values in found.items()}


def repeated_guesses(clustering: bool) -> str:
    draw, false = np.random.default_rng(7), []
    names = [str(n // 4) if clustering else str(n) for n in range(800)]
    for _ in range(TIMES):
        right = np.repeat(draw.random(200) < GUESS, 4).tolist()
        false.append(against_odds(right, [GUESS] * 800, names).doubled < LEVEL)
    return share(false)


def calibrated_error(n: int, gap: float) -> list[float]:
    draw, errors = np.random.default_rng(8), []
    for _ in range(200):
        said = draw.uniform(0.3, 1, n)
        right = (draw.random(n) < said - gap).astype(float)
        errors.append([error(Predictions(said, right, right), binned(said, kind)) for kind in ("width", "mass")])
    return np.mean(errors, axis=0).round(3).tolist()


def seconds(n: int) -> tuple[float, float]:
    draw, codes = np.random.default_rng(9), ("en", "de", "fr", "es", "it", "ru", "ja", "zh", "ar", "sw")
    each = n // len(codes)
    a, b = ([item(k, draw.random() < MEAN, c, f"g {k}") for c in codes for k in range(each)] for _ in range(2))
    begin = time.perf_counter()
    tables.scores(a, {c: c for c in codes})
    middle = time.perf_counter()
    comparison.compare(a, b)
    return round(middle - begin, 2), round(time.perf_counter() - middle, 2)


def main() -> None:
    for n in (20, 60, 200):
        print(f"Wilson, {n} items, holds the truth:", wilson_coverage(n))
    for clusters in (30, 150, 600):
        held = bootstrap_coverage(clusters, 4, True), bootstrap_coverage(clusters, 4, False)
        print(f"bootstrap, {clusters} clusters of 4: {held[0]}; without clusters {held[1]}")
    for scale in (5, 10, 40):
        print(f"macro, 3 languages of {12 * scale}, {6 * scale}, {3 * scale} items: translations",
              macro_coverage(True, scale), "apart", macro_coverage(False, scale))  # fmt: skip
    for n in (60, 120, 500):
        print(f"paired difference, {n} items:", paired_coverage(n))
    print("false verdict against chance, 50 languages of 100 items:", false_against_chance(50, 100))
    print("false verdict against chance, 50 languages of 1000 items:", false_against_chance(50, 1000))
    print("false verdict between models, 50 languages of 100 items:", false_between_models(50, 100))
    print("guesses repeated over 4 translations:", repeated_guesses(True), "unclustered", repeated_guesses(False))
    for n in (100, 1000, 20_000):
        print(
            f"ECE (width, mass) of {n} items: calibrated",
            calibrated_error(n, 0),
            "0.2 too sure",
            calibrated_error(n, 0.2),
        )
    print("seconds for 20,000 items in 10 languages: scores, compare", seconds(20_000))


if __name__ == "__main__":
    main()
