"""How much a model's answers hang on the wording: the prompt-sensitivity index POSIX, per language.

For N prompts that mean the same, with own answers y_i, psi = 1/(N(N-1)) * sum over i != j of
|log P(y_j | x_i) - log P(y_j | x_j)| / |y_j| (Chatterjee et al. 2024, arXiv 2410.02185). Of multiple
choice y is the letter of the answer, so |y| = 1. The index of a set is the mean of psi.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from polyclinic.errors import DataError
from polyclinic.intervals import Floats, bootstrap


class Asked(NamedTuple):
    """One question put in several ways that mean the same; the first way is the plain one."""

    id: str
    language: str
    group: str
    gold: int
    log_p: Floats  # ways x choices: log of the probability of each choice after each prompt, in nats
    kind: str = ""  # of what was varied, such as template or typos


def psi(log_p_NC: Floats) -> float:
    """Return the index of one question; raises DataError for less than two ways and for infinite values."""
    ways = len(log_p_NC)
    if ways < 2:  # noqa: PLR2004 - one way cannot differ
        raise DataError("sensitivity", "a question is put in less than two ways", "add ways that mean the same")
    if not np.isfinite(log_p_NC).all():
        raise DataError("sensitivity", "a log-probability is not finite", "ask for log-probabilities of all choices")
    answers_N = log_p_NC.argmax(axis=1)
    crossed_NN = log_p_NC[:, answers_N]  # row i, column j: the answer to j after prompt i
    return float(np.abs(crossed_NN - np.diagonal(crossed_NN)).sum() / (ways * (ways - 1)))


def sensitivity(asked: Sequence[Asked], seed: int = 0) -> list[dict[str, Any]]:
    """Return a row per kind and language: index with interval, flipped answers, range of accuracy."""
    groups: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        groups.setdefault((one.kind, one.language), []).append(one)
    return [_row(*key, groups[key], seed) for key in sorted(groups)]


def _row(kind: str, code: str, asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """Return one row.

    `flipped` is the share of answers to other wordings that differ from that to the plain one, `unstable`
    that of questions with more than one answer.
    """
    if len({len(one.log_p) for one in asked}) > 1:
        raise DataError("sensitivity", f"questions of '{code}' are put in different numbers of ways", "use as many")
    values = np.array([psi(one.log_p) for one in asked])
    interval = bootstrap(values, [one.group for one in asked], seed)
    answers_QN = np.array([one.log_p.argmax(axis=1) for one in asked])
    changed_QN = answers_QN[:, 1:] != answers_QN[:, :1]
    accuracy_N = (answers_QN == np.array([[one.gold] for one in asked])).mean(axis=0)
    return {
        "kind": kind,
        "language": code,
        "n": len(asked),
        "ways": answers_QN.shape[1],
        "index": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "flipped": float(changed_QN.mean()),
        "unstable": float(changed_QN.any(axis=1).mean()),
        "accuracy": float(accuracy_N[0]),
        "lowest": float(accuracy_N.min()),
        "highest": float(accuracy_N.max()),
    }
