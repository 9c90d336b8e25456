"""What a corpus lacks, in sentences: what a reader must know before relying on it."""

from collections.abc import Iterable, Mapping
from typing import Any

from polyclinic.corpus.starter import NOTICE, SOURCE

LITTLE = 10_000  # characters; a language with less is named
UNKNOWN = "unknown"
SHOWN = 12  # names of a gap; the tables have the rest


def gaps(card: Mapping[str, Any]) -> list[str]:
    """Return the gaps that a card's counts show, and what no count can show."""
    languages: Mapping[str, Mapping[str, int]] = card["languages"]
    wanted = card.get("wanted") or list(languages)
    rows = {code: languages.get(code, {}) for code in wanted}
    found = [
        _named("No training text", (c for c, row in rows.items() if not row.get("train"))),
        _named(
            f"Fewer than {LITTLE:,} characters of text",
            (c for c, row in rows.items() if 0 < row.get("characters", 0) < LITTLE),
        ),
        _named("No held-out text", (c for c, row in rows.items() if not row.get("held_out"))),
        _named("No exam questions", (c for c, row in rows.items() if not row.get("questions"))),
        *_kinds(card, [c for c, row in rows.items() if row.get("characters")]),
        *_origins(card),
        _named("Text whose language was not checked", _unchecked(card)),
        "No clinician and no native speaker is known to have reviewed this text.",
    ]
    if any(source["source"] == SOURCE for source in card["sources"]):
        found.append(f"{SOURCE}: {NOTICE}")
    return [gap for gap in found if gap]


def _named(what: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{what}: {', '.join(listed[:SHOWN])}{more}." if listed else ""


def _kinds(card: Mapping[str, Any], codes: list[str]) -> list[str]:
    """Say which categories are missing in which languages; a corpus that knows one kind says that."""
    names = [row["category"] for row in card["categories"]]
    if set(names) <= {""}:
        return ["The sources do not say what category their text is of."] if names else []
    kinds = card["kinds"]
    return [
        _named(f"No text of category '{name}'", (code for code in codes if name not in kinds.get(code, {})))
        for name in filter(None, names)
    ]


def _origins(card: Mapping[str, Any]) -> list[str]:
    sources = card["sources"]
    due = (s["source"] for s in sources if s["licence"].upper().startswith("CC-BY") and not s["url"])
    return [
        _named("Licence unknown", {s["source"] for s in sources if s["licence"] == UNKNOWN}),
        _named("Attribution is due but no address is known", set(due)),
    ]


def _unchecked(card: Mapping[str, Any]) -> set[str]:
    """Return the languages that the identification did not check, from its counts `language: CODE not checked`."""
    words = (reason.split() for reason in card["counts"])
    return {w[1] for w in words if w[0] == "language:" and w[2:] == ["not", "checked"]}
