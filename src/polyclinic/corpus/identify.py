"""Is a text in the language its record claims? Checked offline, and said so where it cannot be.

py3langid restricted to the wanted languages, which is far surer than free choice. A language the
model does not know is counted as `not checked`, never passed silently. Languages that differ less
than the model can tell (data/identify.yaml) count as one.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import pyarrow as pa
import yaml
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from polyclinic.corpus.step import Outcome, outcome, texts
from polyclinic.languages import all_languages, language

MIN_CHARACTERS = 40
MIN_CONFIDENCE = 0.9


@cache
def alike() -> tuple[frozenset[str], ...]:
    """Return the groups of languages that are not told apart."""
    text = resources.files("polyclinic.data").joinpath("identify.yaml").read_text("utf-8")
    return tuple(frozenset(group) for group in yaml.safe_load(text)["alike"])


class Identifier:
    """Detects one of a fixed set of languages. Loading takes about a second, so make one a process."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = {label: code for label in self._model.labels if (code := _code(label)) is not None}
        self._codes = {label: code for label, code in known.items() if code in set(wanted)}
        if len(self.known) < 2:  # noqa: PLR2004 - with one language to choose, every text would be in it
            self._codes = {}
        if self._codes:
            self._model.set_languages(set(self._codes))

    @property
    def known(self) -> frozenset[str]:
        """Languages that can be checked."""
        return frozenset(self._codes.values())

    def verdict(self, text: str, declared: str) -> str:
        """Return `ok`, `not checked`, or `looks like CODE`."""
        if declared not in self.known or len(text) < MIN_CHARACTERS:
            return "not checked"
        ranked = [(self._codes[label], probability) for label, probability in self._model.rank(text)]
        found = ranked[0][0]
        as_one = {found}.union(*(group for group in alike() if found in group))
        confidence = sum(probability for code, probability in ranked if code in as_one)
        return "ok" if declared in as_one or confidence < MIN_CONFIDENCE else f"looks like {found}"


def _code(label: str) -> str | None:
    """Return our code for a label of the model, or None where it names no language of the table."""
    listed = label in all_languages() or any(label in known.aliases for known in all_languages().values())
    return language(label).code if listed else None


def identify(batch: pa.RecordBatch, identifier: Identifier, drop: bool) -> Outcome:
    """Check every document; those in another language are counted, and dropped if `drop`."""
    counts: Counter[str] = Counter()
    reasons: list[str | None] = []
    for text, code in zip(texts(batch), batch.column("language").to_pylist(), strict=True):
        verdict = identifier.verdict(text, code)
        wrong = verdict.startswith("looks like") and drop
        if verdict != "ok" and not wrong:
            counts[f"language: {code} {verdict}"] += 1
        reasons.append(f"{code} {verdict}" if wrong else None)
    return outcome(batch, reasons, counts)
