"""Is a text in the language and script its record claims? Checked offline, and said so where it cannot be.

A language no model knows is counted as `not checked`, never passed silently. Languages that differ
less than a model can tell count as one (data/identify.yaml), except where their scripts differ.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from polyclinic.corpus.identify import ngrams
from polyclinic.corpus.identify.detectors import Alike, Builtin, Detector, Finding, sample
from polyclinic.corpus.identify.letters import expand, letters, shares
from polyclinic.corpus.step import Outcome, outcome, texts
from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.runs import digest, sha256_file

BUILTIN, GLOTLID = "builtin", "glotlid:"
MODEL = "identifier.bin"
LONG = 1000  # characters that are looked at, of the first, middle and last part of longer texts
FOR_SCRIPT, FOR_LANGUAGE = 10, 32  # letters from which the script and the language can be judged
DENSE = frozenset({"Hani", "Kana", "Hang"})  # a letter of these says as much as three of an alphabet
LEAD = 2200  # thousandths of a nat by which another language must lead
NOT_CHECKED = "not checked"
ENOUGH = 4  # one letter in so many in a language's own script: the others are names and terms
ROMAN = "Latn"  # what any language may be romanised in


@cache
def _table() -> dict[str, Any]:
    text = resources.files("polyclinic.data").joinpath("identify.yaml").read_text("utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def alike() -> tuple[frozenset[str], ...]:
    """Return the groups of languages that are not told apart."""
    return tuple(frozenset(group) for group in _table()["alike"])


@cache
def own_scripts(code: str) -> frozenset[str]:
    """Return the scripts a language is mostly written in, as `letters.shares` names them."""
    return expand(language(code).script)


@cache
def other_scripts(code: str) -> frozenset[str]:
    """Return further scripts a language is found in; Latin is one of every language."""
    return frozenset(_table()["scripts"].get(code, ())) | {ROMAN}


def detector(choice: str, wanted: Iterable[str]) -> Detector:
    """Return what `corpus.identifier` names; loading takes about a second, so make one a process."""
    groups = Alike(alike())
    if choice.startswith(GLOTLID):
        from polyclinic.corpus.identify.glotlid import GlotLid, load

        return GlotLid(load(Path(choice.removeprefix(GLOTLID))), groups)
    return Builtin(ngrams.load(_model(choice)), wanted, groups)


def _model(choice: str) -> Any:
    return resources.files("polyclinic.data").joinpath(MODEL) if choice == BUILTIN else Path(choice)


def version(choice: str) -> str:
    """Return a digest of the files that decide verdicts, for the keys of shards; raises DataError without them."""
    path = _model(choice.removeprefix(GLOTLID))
    if not path.is_file():
        raise DataError(path, "no such file", "check corpus.identifier")
    model = sha256_file(path) if isinstance(path, Path) else sha256(path.read_bytes()).hexdigest()
    return digest([model, _table()])


@cache
def identifier(choice: str, wanted: tuple[str, ...]) -> "Identifier":
    """Return this process's one identifier of some languages; every step that asks shares it."""
    return Identifier(detector(choice, wanted))


class Identifier:
    """Judges texts by what their records claim."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    @property
    def known(self) -> frozenset[str]:
        """Languages that can be checked."""
        return frozenset(self.detector.known)

    def verdict(self, text: str, declared: str) -> str:
        """Return `ok`, `not checked`, `looks like CODE`, `other script S` or `in script S`.

        The last is a script that the language is not found in; `other script` is one that it is
        found in beside its own.
        """
        part = sample(text, LONG)
        found = shares(letters(part)[1])
        total = sum(found.values())
        if total < FOR_SCRIPT:
            return NOT_CHECKED
        long = total + 2 * sum(found.get(name, 0) for name in DENSE) >= FOR_LANGUAGE
        finding = self.detector.find(part, declared) if long else None
        script, own = next(iter(found)), own_scripts(declared)
        if script in own:
            return self._by_language(finding, declared)
        if ENOUGH * sum(found.get(name, 0) for name in own) >= total:
            return "ok" if long and declared in self.known else NOT_CHECKED
        return self._by_script(finding, declared, script)

    def _by_language(self, finding: Finding | None, declared: str) -> str:
        """Judge a text in its language's own script."""
        if finding is None or declared not in self.known:
            return NOT_CHECKED
        sure = finding.lead is not None and finding.lead >= LEAD
        return f"looks like {finding.found}" if sure else "ok"

    def _by_script(self, finding: Finding | None, declared: str, script: str) -> str:
        """Judge a text in another script: of the languages in it, one may be clear; else the script is named."""
        possible = script in other_scripts(declared)
        if finding and finding.clear >= LEAD and self._writes(finding.found, script):
            itself = finding.lead == 0 and possible
            if not itself:
                return f"looks like {finding.found}"
        return f"other script {script}" if possible else f"in script {script}"

    def _writes(self, code: str, script: str) -> bool:
        """Say whether the detector knows a language in a script."""
        return script in (self.detector.known.get(code) or own_scripts(code))


def identify(batch: pa.RecordBatch, identifier: Identifier, drop: bool) -> Outcome:
    """Check every document; those in another language or an impossible script are dropped if `drop`."""
    counts: Counter[str] = Counter()
    reasons: list[str | None] = []
    for text, code in zip(texts(batch), batch.column("language").to_pylist(), strict=True):
        verdict = identifier.verdict(text, code)
        wrong = verdict.startswith(("looks like", "in script")) and drop
        if verdict != "ok" and not wrong:
            counts[f"language: {code} {verdict}"] += 1
        reasons.append(f"{code} {verdict}" if wrong else None)
    return outcome(batch, reasons, counts)
