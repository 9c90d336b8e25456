"""What is routed: documents of a folder, and how they fall into languages and buckets.

Texts may be many, so they are read twice and never held: once to learn languages, groups and
buckets, in bounded memory, and once to be routed.
"""

import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.records import Document, Turn

BUCKETS = 64  # of one language
SUFFIXES = (".jsonl", ".txt")


class Folder:
    """The documents below a folder, read anew each time they are asked for.

    Of `*.jsonl` each line is an object with `text`; its `language` (else the file's name) is its
    language, `parallel_id` joins translations. Of `*.txt` each line is a text in the language that
    the file is named after. Raises DataError for a folder without such files.
    """

    def __init__(self, folder: Path, languages: Collection[str] = ()) -> None:
        self._folder, self._wanted = folder, {language(code, where="--languages").code for code in languages}
        if not folder.is_dir():
            raise DataError(folder, "is no folder", "name a folder of .jsonl or .txt files")
        self.files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
        if not self.files:
            raise DataError(folder, "holds no .jsonl or .txt files", "name a folder of texts, a file a language")

    def __iter__(self) -> Iterator[Document]:
        for path in self.files:
            for number, line in _lines(path):
                document = self._document(path, number, line)
                if not self._wanted or document.language in self._wanted:
                    yield document

    def _document(self, path: Path, number: int, line: str) -> Document:
        where = f"{path}:{number}"
        record = {"text": line} if path.suffix == ".txt" else _record(where, line)
        text, code = record.get("text"), record.get("language", path.stem)
        if not isinstance(text, str):
            raise DataError(where, "has no text", 'write the text under the key "text"')
        name = str(record.get("id", f"{path.relative_to(self._folder)}:{number}"))
        group = str(record.get("parallel_id") or name)
        source, licence = str(record.get("source", "")), str(record.get("licence", ""))
        return Document(name, language(code, where=where).code, source, licence, group, (Turn("text", text),))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file that hold anything."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as err:
        raise DataError(path, "is not UTF-8", "convert it to UTF-8") from err


def _record(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise DataError(where, "is no JSON", "write one JSON object a line") from err
    if not isinstance(record, dict):
        raise DataError(where, "is no JSON object", "write one JSON object a line")
    return record


def place_of(group: str) -> int:
    """Return a number below 2**64 that only the group decides, evenly spread."""
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Smallest:
    """The k smallest of the distinct numbers it is shown, so that languages with the same groups keep the same."""

    def __init__(self, k: int) -> None:
        self._k, self._heap, self.held = k, list[int](), set[int]()

    def add(self, number: int) -> None:
        """Take a number in, and let the largest go where there are too many."""
        if number in self.held or (len(self._heap) == self._k and number > -self._heap[0]):
            return
        self.held.add(number)
        heapq.heappush(self._heap, -number)
        if len(self._heap) > self._k:
            self.held.remove(-heapq.heappop(self._heap))

    def reaches(self, number: int) -> bool:
        """Say whether a number is among the smallest, of those that were shown."""
        return len(self._heap) < self._k or number <= -self._heap[0]


class Survey(NamedTuple):
    """What the first reading learned."""

    languages: tuple[str, ...]  # codes, sorted
    documents: dict[str, int]  # of each language
    left_out: dict[str, int]  # languages with too little text, and their tokens
    parallel: int  # groups with text in two languages or more, among those with buckets of their own
    number_of: dict[int, int]  # place of a group -> its bucket's number, for groups that have one of their own
    capped: dict[str, Smallest]  # groups that are routed, of each language; empty for all
    cap: int | None

    def routed(self) -> int:
        """Return how many documents will be routed, or a few less where one language has a group twice."""
        return sum(min(n, self.cap or n) for n in self.documents.values())

    def bucket_number(self, group: str) -> int:
        """Return the number of a group's bucket, in every language the same."""
        place = place_of(group)
        return self.number_of.get(place, place % BUCKETS)

    def takes(self, document: Document) -> bool:
        """Say whether a document is to be routed."""
        if document.language not in self.languages:
            return False
        return not self.capped or self.capped[document.language].reaches(place_of(document.group))


def fingerprint(documents: Iterable[Document], found: Survey) -> dict[str, Any]:
    """Return the number of the documents that are routed and a digest of language and text, in any order."""
    total, num = 0, 0
    for document in documents:
        if found.takes(document):
            total, num = (total + place_of(f"{document.language}\n{document.text()}")) % 2**64, num + 1
    return {"documents": num, "digest": f"{total:016x}"}


def survey(
    documents: Iterable[Document],
    measure: Callable[[Document], int],
    least: int,
    languages: Collection[str] = (),
    cap: int | None = None,
) -> Survey:
    """Read all documents once.

    A language with fewer than `least` tokens (by `measure`) is left out. `cap` limits the groups of
    a language to those that come first by hash, the same in all languages. Raises DataError where
    a language that was asked for has too little text, or none is left.
    """
    tokens: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    own: dict[str, Smallest] = defaultdict(lambda: Smallest(BUCKETS))
    capped: dict[str, Smallest] = defaultdict(lambda: Smallest(cap or 1))
    for document in documents:
        code, place = document.language, place_of(document.group)
        counts[code] += 1
        if tokens[code] < least:
            tokens[code] += measure(document)
        own[code].add(place)
        if cap:
            capped[code].add(place)
    codes = tuple(sorted(code for code in counts if tokens[code] >= least))
    _check(codes, tokens, least, [language(code, where="--languages").code for code in languages])
    groups = Counter(place for code in codes for place in own[code].held)
    parallel = sum(n > 1 for n in groups.values())
    left_out = {code: tokens[code] for code in sorted(counts) if code not in codes}
    numbers = _numbers({code: own[code].held for code in codes})
    return Survey(codes, {c: counts[c] for c in codes}, left_out, parallel, numbers, dict(capped), cap)


def _check(codes: Collection[str], tokens: Counter[str], least: int, asked: Collection[str]) -> None:
    """Raise DataError where there is nothing to compare."""
    for code in asked:
        if code not in codes:
            what = f"{tokens[code]} tokens of text in {code}, fewer than the {least} experts they could go to"
            raise DataError("--languages", what, f"ask for others, of: {', '.join(codes) or 'none'}")
    if len(codes) < 2:  # noqa: PLR2004
        what = f"text in fewer than two languages that has at least {least} tokens, one an expert"
        raise DataError("analyse", what, "give more text, or text of more languages")


def _numbers(held: dict[str, set[int]]) -> dict[int, int]:
    """Give groups bucket numbers so that those of one language differ where that can be."""
    speaks: dict[int, list[str]] = defaultdict(list)
    for code, places in held.items():
        for place in places:
            speaks[place].append(code)
    used = {code: Counter[int]() for code in held}
    out = {}
    for place in sorted(speaks, key=lambda p: (-len(speaks[p]), p)):
        out[place] = min(range(BUCKETS), key=lambda n: (max(used[c][n] for c in speaks[place]), n))
        for code in speaks[place]:
            used[code][out[place]] += 1
    return out
