"""Whether a model knows when it is right: its confidence in the answer it picks against how often that is right.

Probabilities are the softmax of the scores of the choices (Guo et al. 2017, arXiv 1706.04599). Of options
scored per byte they are not a distribution that the model was trained for.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyclinic.errors import DataError
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.prompting import subsets
from polyclinic.intervals import Floats

BINS = 15
Binning = Literal["width", "mass"]


class Predictions(NamedTuple):
    """Of each item: probability of the likeliest choice, whether it is right, squared error over all choices."""

    confidence: Floats
    right: Floats
    squared: Floats


def calibration(items: Sequence[Item], seed: int = 0) -> dict[str, Any] | None:
    """Return errors, Brier score and reliability tables; None where no item has scores (written answers).

    `floor` is the error that a perfectly calibrated model with these confidences would show, on
    average of 200 draws: of few items it is far from 0.
    """
    scored = [i for i in items if i.scores]
    if not scored:
        return None
    found = predictions(scored)
    out: dict[str, Any] = {
        "n": len(scored),
        "without_scores": len(items) - len(scored),
        "confidence": float(found.confidence.mean()),
        "accuracy": float(found.right.mean()),
        "brier": float(found.squared.mean()),
    }
    kinds: tuple[Binning, ...] = ("width", "mass")
    for kind in kinds:
        bins = binned(found.confidence, kind)
        out[f"ece_{kind}"] = error(found, bins)
        out[f"floor_{kind}"] = floor(found, bins, seed)
        out[f"bins_{kind}"] = reliability(found, bins)
    return out


def predictions(items: Sequence[Item]) -> Predictions:
    """Return what the scores of items say; raises DataError for scores that are no numbers or of another length."""
    values = np.array([_one(i) for i in items])
    return Predictions(values[:, 0], values[:, 1], values[:, 2])


def _one(item: Item) -> tuple[float, float, float]:
    scores = np.asarray(item.scores, dtype=np.float64)
    if not np.isfinite(scores.max()) or np.isnan(scores).any():
        raise DataError(f"item {item.id} of {item.task}", "has scores that are no numbers", "ask it again")
    weights = np.exp(scores - scores.max())
    shares = weights / weights.sum()
    gold = _gold(item)
    truth = np.zeros(len(shares))
    truth[gold] = 1.0
    return float(shares.max()), float(np.argmax(shares) == gold), float(((shares - truth) ** 2).sum())


def _gold(item: Item) -> int:
    """Return which choice is right: an option, or a set of options where those were scored."""
    if len(item.scores) == item.options and len(item.gold) == 1:
        return item.gold[0]
    sets = subsets(item.options)
    if len(item.scores) != len(sets):
        what = f"has {len(item.scores)} scores for {item.options} options"
        raise DataError(f"item {item.id} of {item.task}", what, "score every option, or every set of options")
    return sets.index(tuple(sorted(item.gold)))


def binned(confidence: Floats, kind: Binning, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence: of equal width from 0 to 1, or of as equal numbers of items as can be."""
    if kind == "width":
        return np.minimum((confidence * bins).astype(np.int64), bins - 1)
    out = np.empty(len(confidence), dtype=np.int64)
    out[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // len(confidence)
    return out


def error(found: Predictions, bins: NDArray[np.int64]) -> float:
    """Return the expected calibration error: the mean over items of their bin's |accuracy - confidence|."""
    return float(np.abs(np.bincount(bins, found.right - found.confidence)).sum() / len(bins))


def floor(found: Predictions, bins: NDArray[np.int64], seed: int, draws: int = 200) -> float:
    """Return the mean error if each item were right as often as its confidence says."""
    draw = np.random.default_rng(seed)
    errors = [
        error(found._replace(right=(draw.random(len(bins)) < found.confidence).astype(np.float64)), bins)
        for _ in range(draws)
    ]
    return float(np.mean(errors))


def reliability(found: Predictions, bins: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return bins that hold items: lowest and highest confidence, items, mean confidence, accuracy."""
    out = []
    for number in np.unique(bins):
        inside = bins == number
        own = found.confidence[inside]
        out.append(
            {
                "low": float(own.min()),
                "high": float(own.max()),
                "n": int(inside.sum()),
                "confidence": float(own.mean()),
                "accuracy": float(found.right[inside].mean()),
            }
        )
    return out
