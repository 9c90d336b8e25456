"""GlotLID, or another fastText model with labels such as `eng_Latn`, as the detector.

GlotLID: Kargaran et al. 2023, arXiv 2310.16248. Nothing is downloaded: the recipe names the file.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyclinic.corpus.identify.detectors import Alike, Finding
from polyclinic.corpus.identify.letters import expand
from polyclinic.corpus.identify.ngrams import MILLI
from polyclinic.errors import DataError, MissingDependencyError
from polyclinic.languages import all_languages

MOST = 20  # labels that are asked for
LEAST = 1e-6  # probability that a language has at least
PREFIX = "__label__"
ANYTHING, ALL = "a", -1  # a text of any kind, and as many labels as there are


class GlotLid:
    """A fastText model; labels of languages that our table lacks are passed over."""

    def __init__(self, model: Any, alike: Alike) -> None:
        self._model, self._alike = model, alike
        labels, _ = model.predict(ANYTHING, k=ALL)
        by_name = {
            name: row.code for row in all_languages().values() for name in (row.code, row.iso639_3, *row.aliases)
        }
        scripts: dict[str, set[str]] = {}
        self._codes: dict[str, str] = {}
        for label in labels:
            name, _, script = label.removeprefix(PREFIX).partition("_")
            if code := by_name.get(name):
                self._codes[label] = code
                scripts.setdefault(code, set()).update(expand(script))
        self.known: Mapping[str, frozenset[str]] = {code: frozenset(found) for code, found in scripts.items()}

    def find(self, text: str, declared: str) -> Finding | None:
        """Judge a text by the odds of languages; None where the likeliest labels are all strangers."""
        labels, chances = self._model.predict(" ".join(text.split()), k=MOST)
        found: dict[str, float] = {}
        for label, chance in zip(labels, chances, strict=True):
            if code := self._codes.get(label):
                found[code] = found.get(code, 0.0) + float(chance)
        if not found:
            return None
        least = dict.fromkeys(self.known, LEAST)
        scores = {code: round(MILLI * math.log(max(chance, LEAST))) for code, chance in (least | found).items()}
        return self._alike.finding(scores, declared)


def load(path: Path) -> Any:
    """Open a fastText model; raises DataError where there is none, MissingDependencyError without fastText."""
    if not path.is_file():
        raise DataError(path, "no such file", "check corpus.identifier")
    try:
        import fasttext
    except ModuleNotFoundError as err:
        what = "the package fasttext is not installed"
        raise MissingDependencyError("corpus.identifier", what, "pip install 'polyclinic[glotlid]'") from err
    try:
        return fasttext.load_model(str(path))
    except ValueError as err:
        raise DataError(path, "no fastText model", "check corpus.identifier") from err
