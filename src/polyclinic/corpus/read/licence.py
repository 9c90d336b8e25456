"""Licences: one name for each, and the recipe's policy on what a licence asks (`data/licences.yaml`)."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

import pyarrow as pa
import yaml

from polyclinic.corpus.step import Outcome, outcome
from polyclinic.corpus_section import LicencesSection
from polyclinic.errors import DataError, RecipeError

UNKNOWN = "unknown"


class Licence(NamedTuple):
    """A licence by its usual id, and what it asks: NC, SA, ND."""

    name: str
    asks: frozenset[str]


class Table(NamedTuple):
    """The known licences by the bare form of each of their names, and the words that mean the same."""

    words: tuple[tuple[str, str], ...]
    licences: Mapping[str, Licence]


@cache
def table() -> Table:
    """Return the table of `data/licences.yaml`."""
    given = yaml.safe_load(resources.files("polyclinic.data").joinpath("licences.yaml").read_text("utf-8"))
    words = tuple((_spaced(word), put) for word, put in given["words"].items())
    found: dict[str, Licence] = {}
    for kind, asks in given["creative_commons"].items():
        for name in (kind, *(f"{kind}-{version}" for version in given["versions"])):
            found[_bare(name, words)] = Licence(name, frozenset(asks))
    for name, entry in given["licences"].items():
        for spelling in (name, *entry.get("also", ())):
            found[_bare(spelling, words)] = Licence(name, frozenset(entry.get("asks", ())))
    return Table(words, found)


def _spaced(name: str) -> str:
    """Return a name in lower case with spaces for its marks; points stay between digits."""
    return " ".join(re.sub(r"(?<!\d)\.|\.(?!\d)|[^a-z0-9.]", " ", name.lower()).split())


def _bare(name: str, words: tuple[tuple[str, str], ...]) -> str:
    """Return a name as it is compared; a version 4 is a version 4.0."""
    found = f" {_spaced(name)} "
    for word, put in words:
        found = found.replace(f" {word} ", f" {put} ")
    return re.sub(r"(?<![\d.])v?(\d)(?![\d.])", r"\1.0", found).replace(" ", "")


@cache
def licence(name: str) -> Licence | None:
    """Return the known licence of a name in any usual spelling, or None."""
    known = table()
    return known.licences.get(_bare(name, known.words))


@cache
def _allowed(names: tuple[str, ...]) -> frozenset[str]:
    unknown = next((name for name in names if licence(name) is None), None)
    if unknown is not None:
        raise RecipeError("corpus.licences.allow", f"'{unknown}' is no licence we know", "see data/licences.yaml")
    return frozenset(found.name for name in names if (found := licence(name)))


def refusal(name: str, policy: LicencesSection) -> str | None:
    """Return why a policy refuses a licence, or None if it takes it."""
    found = licence(name)
    if found is None:
        return None if policy.unknown and policy.allow is None else "licence unknown"
    if policy.allow is not None and found.name not in _allowed(tuple(policy.allow)):
        return f"licence {found.name}: not allowed"
    ruled = (("NC", policy.non_commercial), ("SA", policy.share_alike), ("ND", policy.no_derivatives))
    against = [flag for flag, taken in ruled if flag in found.asks and not taken]
    return f"licence {found.name}: {' '.join(against)}" if against else None


def apply(batch: pa.RecordBatch, policy: LicencesSection) -> Outcome:
    """Give every licence its usual name and drop what the policy refuses, or raise DataError for it.

    A licence that is not known keeps the name it came with, and is counted.
    """
    given = batch.column("licence").to_pylist()
    ruled = {name: refusal(name, policy) for name in dict.fromkeys(given)}
    if policy.on_refusal == "fail":
        _fail(batch, ruled)
    names = [found.name if (found := licence(name)) else name for name in given]
    counts: Counter[str] = Counter()
    counts["licence: not known"] = sum(licence(name) is None and ruled[name] is None for name in given)
    counts["changed: name of the licence"] = sum(a != b for a, b in zip(names, given, strict=True) if not ruled[b])
    at = batch.schema.get_field_index("licence")
    named = batch.set_column(at, batch.schema.field(at), pa.array(names, pa.string()))
    return outcome(named, [ruled[name] for name in given], +counts)


def _fail(batch: pa.RecordBatch, ruled: Mapping[str, str | None]) -> None:
    for name, source in zip(batch.column("licence").to_pylist(), batch.column("source").to_pylist(), strict=True):
        if (reason := ruled[name]) is not None:
            try_ = "leave the source out, state its licence, or change corpus.licences"
            raise DataError(f"source {source}", f"{reason}, which corpus.licences refuses", try_)
