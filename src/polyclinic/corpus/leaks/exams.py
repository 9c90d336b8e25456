"""The exam items that training text must not hold, as one folder that every shard is searched with.

Each item is one or two pieces that must be found whole: its question or, where that is short or
several items ask the same, its question and its right option. Blocks of a quarter of the wanted length
point into the pieces, so that a run of that length holds several of them wherever it begins. Blocks
that many questions share are phrases of exams and point nowhere.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyclinic.corpus.units import Ints, UInts, Units, letters, plain, tokens, windows
from polyclinic.corpus_section import DecontaminateSection
from polyclinic.languages import all_languages
from polyclinic.records import Question

ITEMS_FILE, PIECES_FILE, BLOCKS_FILE = "items.parquet", "pieces.parquet", "blocks.parquet"
SHARED = 3  # different questions with the same block make it a phrase
FILTER_BITS = 22
LATIN = "Latn"

ITEMS = pa.schema([(name, pa.string()) for name in ("id", "language", "benchmark", "group", "split")])
PIECES = pa.schema([("item", pa.int32()), ("text", pa.string())])
BLOCKS = pa.schema([("size", pa.int16()), ("hash", pa.uint64()), ("piece", pa.int32()), ("start", pa.int32())])


class Lengths(NamedTuple):
    """How long things are in one script, in its units."""

    run: int  # consecutive units that are a leak
    least: int  # an item of fewer is not looked for

    @property
    def block(self) -> int:
        """Return the length of a block."""
        return max(2, self.run // 4)

    @property
    def stride(self) -> int:
        """Return how far apart blocks begin."""
        return max(1, self.block // 2)


@cache
def _scales() -> Mapping[str, Mapping[str, float]]:
    """Return how many letters and tokens each script needs for one of English."""
    text = resources.files("polyclinic.data").joinpath("scales.csv").read_text("utf-8")
    return {
        row["script"]: {k: float(row[k]) for k in ("letters", "tokens")} for row in csv.DictReader(text.splitlines())
    }


def lengths(code: str, section: DecontaminateSection) -> Lengths:
    """Return the lengths for a language: as in Latin script, times what its own needs for the same words."""
    kind = "letters" if section.unit == "characters" else "tokens"
    known = all_languages().get(code)
    scale = _scales().get(known.script if known else LATIN, {}).get(kind, 1.0)
    run = max(4, round(section.units * scale))
    return Lengths(run, run // 2)


def units(plains: Sequence[str], unit: str) -> Units:
    """Return the units that a section compares."""
    return letters(plains) if unit == "characters" else tokens(plains)


def write(questions: Iterable[Question], section: DecontaminateSection, folder: Path) -> Mapping[str, Any]:
    """Write items, pieces and blocks of all questions; returns how many."""
    items = list(questions)
    pieces = list(_pieces(items, section))
    rows = [
        {"id": q.id, "language": q.language, "benchmark": q.source, "group": q.group, "split": q.split} for q in items
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ITEMS), folder / ITEMS_FILE, compression="zstd")
    named = [{"item": number, "text": text} for number, text in pieces]
    pq.write_table(pa.Table.from_pylist(named, schema=PIECES), folder / PIECES_FILE, compression="zstd")
    table = _blocks(pieces, items, section)
    pq.write_table(table, folder / BLOCKS_FILE, compression="zstd")
    return {"items": len(items), "searched": len({number for number, _ in pieces}), "blocks": table.num_rows}


def _pieces(items: Sequence[Question], section: DecontaminateSection) -> Iterator[tuple[int, str]]:
    """Yield (item, text) for all that must be found of each item; none where it is too short."""
    asked_in = [plain(q.question) for q in items]
    answers = [plain(max((q.options[i] for i in q.answers), key=len, default="")) for q in items]
    sizes, extra = (units(texts, section.unit).sizes().tolist() for texts in (asked_in, answers))
    found = units(asked_in, section.unit)
    keys = [found.of(number).tobytes() for number in range(len(items))]
    right: dict[bytes, set[str]] = {}
    for key, answer in zip(keys, answers, strict=True):
        right.setdefault(key, set()).add(answer)
    common = _common(items, found, section)
    for number, question in enumerate(items):
        long = lengths(question.language, section)
        short = sizes[number] < long.run
        alone = sizes[number] >= long.least and not (short and (len(right[keys[number]]) > 1 or keys[number] in common))
        if alone:
            yield number, asked_in[number]
        elif sizes[number] + extra[number] >= long.least and max(sizes[number], extra[number]) >= long.block:
            yield from ((number, text) for text in (asked_in[number], answers[number]) if text)


def _common(items: Sequence[Question], found: Units, section: DecontaminateSection) -> set[bytes]:
    """Return the questions, by their units, half of which stands in other questions, too."""
    plans = [lengths(item.language, section) for item in items]
    out = set()
    for plan in sorted(set(plans)):
        which = np.array([number for number, other in enumerate(plans) if other == plan])
        group = _taken(found, which)
        hashes, local, _ = _placed(group, plan)
        shared = np.bincount(local, _holders(hashes, local, group) > 1, minlength=which.size)
        rows = np.flatnonzero(2 * shared >= np.maximum(1, np.bincount(local, minlength=which.size)))
        out |= {group.of(row).tobytes() for row in rows.tolist()}
    return out


def _taken(found: Units, which: Ints) -> Units:
    """Return the units of some of the texts."""
    parts = [found.of(number) for number in which.tolist()]
    return Units(np.concatenate(parts), np.concatenate(([0], np.cumsum([part.size for part in parts]))))


def _blocks(pieces: Sequence[tuple[int, str]], items: Sequence[Question], section: DecontaminateSection) -> pa.Table:
    """Return the blocks of all pieces, sorted by size and hash, without those that many questions share."""
    plans = [lengths(items[item].language, section) for item, _ in pieces]
    tables = [BLOCKS.empty_table()]
    for plan in sorted(set(plans)):
        which = np.array([number for number, other in enumerate(plans) if other == plan])
        found = units([pieces[number][1] for number in which], section.unit)
        hashes, local, start = _placed(found, plan)
        rare = _holders(hashes, local, found) < SHARED
        sizes = np.full(rare.sum(), plan.block, dtype=np.int16)
        piece, start = which[local[rare]].astype(np.int32), start[rare].astype(np.int32)
        tables.append(pa.table([sizes, hashes[rare], piece, start], schema=BLOCKS))
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in BLOCKS.names])


def _placed(found: Units, plan: Lengths) -> tuple[UInts, Ints, Ints]:
    """Return hash, text and beginning of each block: one every stride, and the last one of each text."""
    seen = windows(found, plan.block)
    text = np.repeat(np.arange(found.sizes().size), np.diff(seen.offsets))
    start = seen.starts - found.offsets[text]
    chosen = (start % plan.stride == 0) | (found.sizes()[text] - plan.block == start)
    return seen.hashes[chosen], text[chosen], start[chosen]


def _holders(hashes: UInts, text: Ints, found: Units) -> Ints:
    """Return for each block how many different texts hold the like of it at one of their blocks' places."""
    numbers: dict[bytes, int] = {}
    same = [numbers.setdefault(found.of(i).tobytes(), i) for i in range(found.sizes().size)]
    pairs = np.stack([hashes, np.array(same, dtype=np.uint64)[text]], axis=1)
    values, counts = np.unique(np.unique(pairs, axis=0)[:, 0], return_counts=True)
    return np.asarray(counts[np.searchsorted(values, hashes)], dtype=np.int64)


class Blocks(NamedTuple):
    """Blocks of one size by hash, and two filters that most other hashes do not pass."""

    hashes: UInts
    piece: Ints
    start: Ints
    seen: np.ndarray[Any, np.dtype[np.bool_]]


class Exams(NamedTuple):
    """The exam items of a build, loaded once a process."""

    items: pa.Table
    piece_item: Ints
    pieces: Units
    partner: Ints  # the other piece that must be found, -1: none
    blocks_of: Ints  # how many blocks point into each piece
    blocks: Mapping[int, Blocks]

    def piece(self, number: int) -> UInts:
        """Return the units of a piece."""
        return self.pieces.of(number)


def load(folder: Path, unit: str) -> Exams:
    """Load what `write` wrote, once a process."""
    return _load(folder, unit, (folder / BLOCKS_FILE).stat().st_mtime_ns)


@lru_cache(1)
def _load(folder: Path, unit: str, _written: int) -> Exams:
    pieces = pq.read_table(folder / PIECES_FILE)
    item = pieces.column("item").to_numpy().astype(np.int64)
    partner = np.full(item.size, -1, dtype=np.int64)
    pairs = np.flatnonzero(item[1:] == item[:-1])
    partner[pairs], partner[pairs + 1] = pairs + 1, pairs
    table = pq.read_table(folder / BLOCKS_FILE)
    sizes = table.column("size").to_numpy()
    columns = [table.column(name).to_numpy() for name in ("hash", "piece", "start")]
    blocks = {}
    for size in np.unique(sizes).tolist():
        hashes, piece, start = (column[sizes == size] for column in columns)
        seen = np.zeros((2, 1 << FILTER_BITS), dtype=np.bool_)
        seen[0, _high(hashes)] = seen[1, _low(hashes)] = True
        blocks[size] = Blocks(hashes, piece.astype(np.int64), start.astype(np.int64), seen)
    found = units(pieces.column("text").to_pylist(), unit)
    blocks_of = np.bincount(table.column("piece").to_numpy(), minlength=item.size)
    return Exams(pq.read_table(folder / ITEMS_FILE), item, found, partner, blocks_of, blocks)


def _high(hashes: UInts) -> UInts:
    return hashes >> np.uint64(64 - FILTER_BITS)


def _low(hashes: UInts) -> UInts:
    return hashes & np.uint64((1 << FILTER_BITS) - 1)


def lookup(blocks: Blocks, hashes: UInts) -> tuple[Ints, Ints]:
    """Return pairs (position among the hashes, row among the blocks) that are equal."""
    at = np.flatnonzero(blocks.seen[0][_high(hashes)])
    at = at[blocks.seen[1][_low(hashes[at])]]
    low = np.searchsorted(blocks.hashes, hashes[at], "left")
    count = np.searchsorted(blocks.hashes, hashes[at], "right") - low
    at, low, count = at[count > 0], low[count > 0], count[count > 0]
    row = np.arange(count.sum()) + np.repeat(low - (np.cumsum(count) - count), count)
    return np.repeat(at, count), row
