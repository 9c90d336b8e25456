"""Train the model of `ngrams.py` on documents whose languages are known.

Softmax regression by stochastic gradient descent with AdaGrad (Duchi et al. 2011), one window of
text a step. Languages take turns equally often and, within a language, sources by the square root of
their size, so that no language is what its largest source is about.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyclinic.corpus.identify.letters import letters, shares
from polyclinic.corpus.identify.ngrams import Model, read
from polyclinic.errors import DataError
from polyclinic.progress import Progress
from polyclinic.records import Document

BITS = 16
WINDOWS = 4000  # of each language
SHORTEST, LONGEST = 20, 300  # characters of a window; as many between 20 and 40 as between 150 and 300
RATE = 0.3
LEARNED = 0.02  # error of the probabilities below which a window teaches nothing more
REPORTS = 200
MANY_FOR_SCRIPT = 10  # a script that one letter in so many is of is one that the language is written in
FULL = 127  # the largest whole number of a weight
CUT = 0.9999  # share of the weights that whole numbers hold; the largest few are cut


class Pool(NamedTuple):
    """The training text of a language: one string a source, and the odds of each, added up."""

    texts: tuple[str, ...]
    odds: NDArray[np.float64]


def hold_out(documents: Iterable[Document], share: float) -> tuple[list[Document], list[Document]]:
    """Part documents into those to train on and those not, by group within language and source.

    Of two groups or more at least one is held out, so that every source of a language is measured.
    """
    documents = list(documents)
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for document in documents:
        groups[document.language, document.source].add(document.group)
    out: dict[tuple[str, str], set[str]] = {}
    for place, found in groups.items():
        ranked = sorted(found, key=lambda group: sha256(group.encode()).digest())
        out[place] = set(ranked[: max(round(share * len(ranked)), len(ranked) > 1)]) if share else set()
    parts: tuple[list[Document], list[Document]] = ([], [])
    for document in documents:
        parts[document.group in out[document.language, document.source]].append(document)
    return parts


def train(documents: Iterable[Document], progress: Progress, windows: int = WINDOWS, seed: int = 0) -> Model:
    """Train a model of the documents' languages; the same on the same machine.

    Raises DataError where they are in fewer than two languages.
    """
    pools = _pools(documents)
    codes = sorted(pools)
    if len(codes) < 2:  # noqa: PLR2004
        raise DataError("train-identifier", "text in two languages at least is needed", "add languages")
    scripts = {code: _scripts("\n".join(pools[code].texts)) for code in codes}
    weights = _descend([pools[code] for code in codes], progress, windows, np.random.default_rng(seed))
    scale = max(int(FULL / max(float(np.quantile(np.abs(weights), CUT)), 1e-6)), 1)
    whole = np.clip(np.rint(weights * scale), -FULL, FULL).astype(np.int8)
    return Model(codes, scripts, scale, whole)


def _pools(documents: Iterable[Document]) -> dict[str, Pool]:
    found: Mapping[str, Mapping[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for document in documents:
        found[document.language][document.source].append(document.text())
    out = {}
    for code, sources in found.items():
        texts = tuple("\n".join(sources[name]) for name in sorted(sources))
        odds = np.cumsum(np.sqrt([len(text) for text in texts]))
        out[code] = Pool(texts, odds / odds[-1])
    return out


def _scripts(text: str) -> list[str]:
    """Return the scripts that a text is written in, without those that only names and terms are in."""
    found = Counter(shares(letters(text)[1]))
    return sorted(script for script, number in found.items() if number * MANY_FOR_SCRIPT >= found.total())


def _descend(pools: Sequence[Pool], progress: Progress, windows: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Return the weights, float32 (2^BITS, languages), after `windows` windows of each language."""
    weights = np.zeros((1 << BITS, len(pools)), dtype=np.float32)
    seen = np.full((1 << BITS, 1), 0.1, dtype=np.float32)
    turns = np.repeat(np.arange(len(pools)), windows)
    draw.shuffle(turns)
    for step, right in enumerate(turns.tolist()):
        rows = read(_window(pools[right], draw), BITS)
        unique, times = np.unique(rows, return_counts=True)
        values = (times / np.sqrt(len(rows))).astype(np.float32)
        error = _softmax(values @ weights[unique])
        error[right] -= 1
        if np.abs(error).max() > LEARNED:
            seen[unique, 0] += values * values * float(error @ error)
            rate = RATE * (1 - step / len(turns))
            weights[unique] -= (rate * values[:, None] / np.sqrt(seen[unique])) * error
        if step % max(len(turns) // REPORTS, 1) == 0:
            progress.advance(step, len(turns), "windows")
    return weights


def _window(pool: Pool, draw: np.random.Generator) -> str:
    """Draw a source, a place in its text and a length."""
    text = pool.texts[int(np.searchsorted(pool.odds, draw.random()))]
    length = int(SHORTEST * (LONGEST / SHORTEST) ** draw.random())
    start = int(draw.integers(0, max(1, len(text) - length)))
    return text[start : start + length]


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(values - values.max())
    chances: NDArray[np.float32] = raised / raised.sum()
    return chances
