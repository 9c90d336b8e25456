"""Which texts are read: as many of each language, translations first, dealt into buckets.

A document's place in every order is the hash of its group, so translations of one text come
together in all languages and a sample does not depend on the order of files. At most POOL
documents of a language are held at a time.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from polyclinic.errors import DataError
from polyclinic.records import Document, Turn

POOL = 2000  # documents of a language that are chosen from
MAX_CHARACTERS = 4000  # of a document
BUCKETS = 32  # of whole documents; the interval draws them
FEWEST = 8  # documents of a language


def _order(group: str) -> int:
    return int.from_bytes(sha256(group.encode()).digest()[:8])


def bucket(group: str) -> int:
    """Return the bucket of a group, the same in every language."""
    return _order(group) % BUCKETS


def sample(documents: Iterable[Document], num: int) -> list[Document]:
    """Return up to `num` documents of each language, those whose groups the most languages share first.

    Raises DataError for fewer than two languages, or a language with fewer than FEWEST documents.
    """
    pools: dict[str, list[tuple[int, int, Document]]] = {}
    for number, document in enumerate(documents):
        if text := document.text().strip():
            cut = document if len(text) <= MAX_CHARACTERS else _cut(document)
            pool = pools.setdefault(document.language, [])
            entry = (-_order(document.group), -number, cut)  # the largest of the pool comes out first
            (heapq.heappush if len(pool) < POOL else heapq.heappushpop)(pool, entry)
    chosen = []
    languages = Counter(group for pool in pools.values() for group in {entry[2].group for entry in pool})
    for code in sorted(pools):
        first = {entry[2].group: entry for entry in sorted(pools[code])}  # one document of a group
        ranked = sorted(first.values(), key=lambda e: (-languages[e[2].group], -e[0]))
        chosen += [entry[2] for entry in ranked[:num]]
    _check(chosen)
    return chosen


def _cut(document: Document) -> Document:
    kept, room = [], MAX_CHARACTERS
    for turn in document.turns:
        kept.append(Turn(turn.role, turn.content[:room]))
        room -= len(turn.content)
        if room <= 0:
            break
    return replace(document, turns=tuple(kept))


def _check(chosen: list[Document]) -> None:
    counts = Counter(document.language for document in chosen)
    if len(counts) < 2:  # noqa: PLR2004
        what = f"text in {'one language' if counts else 'no language'}, two at least are compared"
        raise DataError("analyse depth", what, "give text of more languages")
    for code, count in sorted(counts.items()):
        halves = {bucket(d.group) % 2 for d in chosen if d.language == code}
        if count < FEWEST or len(halves) < 2:  # noqa: PLR2004
            what = f"too little text in '{code}' ({count} documents)"
            raise DataError("analyse depth", what, f"read {2 * FEWEST} or more of each language, or leave it out")
