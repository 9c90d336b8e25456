"""How much text of each language a finished folder holds, read from what its step wrote beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from polyclinic.corpus.pack.pack import META
from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.runs import read_json

CARD = "card.json"


class Amounts(NamedTuple):
    """Text per language code, in one unit: tokens of training text, or characters of all text."""

    unit: Literal["tokens", "characters"]
    by_language: Mapping[str, int]


def amounts(folder: Path) -> Amounts:
    """Return the tokens of a run's packs, or the characters of a corpus that nothing has packed.

    `folder` is a run, its packed step or a corpus. Raises DataError where it is none of them, its
    counts are damaged, or there is no text.
    """
    places = (folder / META, folder / "packed" / META, folder / CARD, folder / "corpus" / CARD)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(folder, "holds no built corpus", "name a corpus or run folder")
    try:
        counts = _tokens(read_json(path)) if path.name == META else _characters(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise DataError(path, "holds no amount of text for each language", "run its step again") from err
    found = {language(code, where=str(path)).code: amount for code, amount in counts.items()}
    if len(found) < len(counts) or not all(type(n) is int and n >= 0 for n in found.values()):
        raise DataError(path, "holds no amount of text for each language", "run its step again")
    if not any(found.values()):
        raise DataError(path, "counts no text", "name a corpus with texts")
    return Amounts("tokens" if path.name == META else "characters", found)


def _tokens(packs: Any) -> dict[str, int]:
    return dict(packs["tokens"])


def _characters(card: Any) -> dict[str, int]:
    """Return 0 for a language that has questions only."""
    return {code: row.get("characters", 0) for code, row in card["languages"].items()}
