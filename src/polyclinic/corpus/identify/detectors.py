"""Which language a text is most likely in, and how far that one is ahead of the declared one.

Leads are in thousandths of a nat (2,197 are odds of nine to one). The detector of the package is our
model and, where that is not sure or disagrees with what is declared, py3langid.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier, visit_counts

from polyclinic.corpus.identify.ngrams import MILLI, Model, read
from polyclinic.languages import all_languages, language

SURE = 2200  # lead of our model over the next language from which py3langid is not asked
SHORT = 300  # characters that py3langid reads
FINE = 256  # whole numbers that one of py3langid's units is cut into


class Finding(NamedTuple):
    """The likeliest language and its leads, over the declared one and over the next that is not like it.

    `lead` is 0 if the likeliest is the declared one or like it, None if the two cannot be compared.
    """

    found: str
    lead: int | None
    clear: int


class Detector(Protocol):
    """Knows some languages, each in some scripts (none listed: nobody said in which)."""

    known: Mapping[str, frozenset[str]]

    def find(self, text: str, declared: str) -> Finding | None:
        """Judge a text; None where nothing can be said."""


class Alike:
    """Groups of languages that count as one."""

    def __init__(self, groups: Iterable[Iterable[str]]) -> None:
        self._groups = [frozenset(group) for group in groups]
        self._known: dict[str, frozenset[str]] = {}

    def of(self, code: str) -> frozenset[str]:
        """Return a language and those it is not told from."""
        if code not in self._known:
            self._known[code] = frozenset({code}).union(*(group for group in self._groups if code in group))
        return self._known[code]

    def lead(self, scores: Mapping[str, int], found: str, declared: str) -> int | None:
        """Return how far a language is ahead of the declared one and those like it."""
        if declared not in scores or found not in scores:
            return None
        return scores[found] - max(scores[code] for code in self.of(declared) if code in scores)

    def finding(self, scores: Mapping[str, int], declared: str) -> Finding:
        """Judge by the scores of languages."""
        best = max(scores.values())
        found = max(code for code, score in scores.items() if score == best)
        group = self.of(found)
        clear = best - max([score for code, score in scores.items() if code not in group], default=best)
        return Finding(found, 0 if declared in group else self.lead(scores, found, declared), clear)


class Builtin:
    """Our model and py3langid; a language that only one of the two knows is judged by that one."""

    def __init__(self, model: Model, wanted: Iterable[str], alike: Alike) -> None:
        self._model, self._alike = model, alike
        self._other = Elsewhere({*model.labels, *wanted})
        self._beyond = self._other.known - set(model.labels)
        self.known: Mapping[str, frozenset[str]] = {**model.scripts, **dict.fromkeys(self._beyond, frozenset())}

    def find(self, text: str, declared: str) -> Finding | None:
        """Judge a text by our model, and by both where that is not sure or not of the declared opinion."""
        here = dict(zip(self._model.labels, self._model.scores(read(text, self._model.bits)), strict=True))
        first = self._alike.finding(here, declared)
        if first.lead == 0 and first.clear >= SURE and not self._beyond:
            return first
        there = self._other.scores(text)
        if not there:
            return first
        if max(there, key=lambda code: (there[code], code)) in self._beyond:
            return self._alike.finding(there, declared)
        if first.found not in there:
            return first
        both = {code: here[code] + there[code] for code in here if code in there}
        second = self._alike.finding(both, declared)
        if second.lead is None:
            lead = self._alike.lead(here if declared in here else there, second.found, declared)
            return second._replace(lead=lead)
        return second


class Elsewhere:
    """py3langid, restricted to the languages in question and summed in whole numbers.

    The library sums floats, whose last bits differ between machines. Its counts, weights and
    temperature are used as they are (py3langid 0.4, `LanguageIdentifier._decide`).
    """

    def __init__(self, wanted: Iterable[str]) -> None:
        model: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
        chosen = set(wanted)
        places = [(i, code) for i, label in enumerate(model.nb_classes) if (code := _code(label)) in chosen]
        columns = [place for place, _ in places]
        self._codes = [str(code) for _, code in places]
        self.known = frozenset(self._codes)
        self._moves, self._outputs = model.tk_nextmove, model.tk_output
        self._rows = [row << 8 for row in model.tk_row]
        weights = np.rint(model.nb_ptc[:, columns].astype(np.float32) * FINE)
        self._weights = np.ascontiguousarray(weights, dtype=np.int16)  # rows lie together, as `take` needs it
        self._first = np.rint(model.nb_pc[columns].astype(np.float64) * FINE * FINE)

    def scores(self, text: str) -> dict[str, int]:
        """Return each language's score in thousandths of a nat; nothing where no feature is in the text."""
        part = sample(text, SHORT)
        data = unicodedata.normalize("NFC", part.lower() if part.isupper() else part).encode("utf-8", "surrogatepass")
        visits = visit_counts(self._moves, self._rows, self._outputs, data)
        if not visits or not self._codes:
            return {}
        times = np.rint(np.log1p(np.fromiter(visits.values(), np.float64, len(visits))) * FINE)
        # Whole numbers below 2^53: the order of the sum does not matter.
        sums = times @ self._weights.take(list(visits), axis=0).astype(np.float64) + self._first
        root = FINE * FINE * math.isqrt(len(data) * MILLI * MILLI)
        out: dict[str, int] = {}
        for code, value in zip(self._codes, sums.tolist(), strict=True):
            score = int(value) * MILLI * MILLI // root
            out[code] = max(score, out.get(code, score))
        return out


def _code(label: str) -> str | None:
    """Return our code for a label of the model, or None where it names no language of the table."""
    listed = label in all_languages() or any(label in known.aliases for known in all_languages().values())
    return language(label).code if listed else None


def sample(text: str, size: int) -> str:
    """Return a text of at most `size` characters: itself, or its first, middle and last part."""
    if len(text) <= size:
        return text
    part = size // 3
    middle = (len(text) - part) // 2
    return "\n".join((text[:part], text[middle : middle + part], text[-part:]))
