"""Packs on disk: Arrow files that are mapped into memory, a fixed number of packs in each.

A stored pack is its tokens, which of them carry loss, and a table of its pieces: five bytes a
token. What training reads of it (labels, positions, languages, families) is derived when asked
for, so that a corpus need not fit into memory and a pack is read where it lies.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from polyclinic.corpus.pack.fit import Pieces
from polyclinic.corpus.pack.tokens import IGNORED, Store
from polyclinic.corpus.tables import PACKED_RECORDS, PACKS, Writer
from polyclinic.errors import DataError

PADDING_LANGUAGE = -1
UNKNOWN_FAMILY = -1
SHARD = "packs-{:05d}.arrow"
PATTERN = "packs-*.arrow"
RECORDS = "packed-records.parquet"
SHARD_TOKENS = 1 << 24
BATCH_TOKENS = 1 << 18

STORED = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("learned", pa.list_(pa.uint8())),  # 1: the token carries loss
        ("lengths", pa.list_(pa.int32())),  # of the pieces, padding last
        ("languages", pa.list_(pa.int16())),  # of the pieces: index into the manifest's languages, -1: padding
        ("families", pa.list_(pa.int16())),  # of the pieces: expert of the language's family, -1: unknown
    ]
)


class ShardWriter:
    """Writes packs of `length` tokens in shards, and beside them which record stands in which pack."""

    def __init__(self, folder: Path, length: int, pad_id: int, places: NDArray[np.int16]) -> None:
        """Take the language id and family id of each group as `places`, shape (groups, 2)."""
        self._folder, self._length, self._pad_id = folder, length, pad_id
        nowhere = np.array([[PADDING_LANGUAGE, UNKNOWN_FAMILY]], dtype=np.int16)
        self._places = np.concatenate([places.reshape(-1, 2), nowhere])
        self._records = Writer(folder / RECORDS)
        self._file: Any = None
        self._shards = 0
        self.packs = 0

    def __enter__(self) -> Self:
        self._records.__enter__()
        self._records.write(pa.RecordBatch.from_pylist([], schema=PACKED_RECORDS))
        return self

    def __exit__(self, *problem: object) -> None:
        if self._shards == 0 and problem[0] is None:
            self._next_shard()
        self._close()
        self._records.__exit__(*problem)

    def write(self, pieces: Pieces, store: Store) -> None:
        """Write the packs of a plan, fetching their tokens from the store."""
        packs = int(pieces.pack[-1]) + 1
        self._write_records(pieces, store)
        step = max(1, min(BATCH_TOKENS, SHARD_TOKENS) // self._length)
        for first in range(0, packs, step):
            low, high = np.searchsorted(pieces.pack, [first, first + step])
            part = pieces.of(np.arange(low, high))
            self._write_batch(self._batch(part._replace(pack=part.pack - first), store))
        self.packs += packs

    def _write_records(self, pieces: Pieces, store: Store) -> None:
        table = [pa.array((pieces.pack + self.packs).astype(np.int32)), pa.array(store.ids(pieces.document))]
        self._records.write(pa.RecordBatch.from_arrays(table, schema=PACKED_RECORDS))

    def _batch(self, pieces: Pieces, store: Store) -> pa.RecordBatch:
        """Gather the tokens of some packs and fill each up with padding, a piece of its own."""
        packs, length = int(pieces.pack[-1]) + 1, self._length
        filled = np.bincount(pieces.pack, weights=pieces.length, minlength=packs).astype(np.int64)
        behind = np.cumsum(pieces.length) - pieces.length
        before = np.repeat(np.cumsum(filled) - filled, np.bincount(pieces.pack, minlength=packs))
        target = pieces.pack * length + behind - before
        inside = np.arange(int(pieces.length.sum())) - np.repeat(behind, pieces.length)
        source = np.repeat(store.starts[pieces.document] + pieces.start, pieces.length) + inside
        goes = np.repeat(target, pieces.length) + inside
        tokens = np.full(packs * length, self._pad_id, dtype=np.int32)
        learned = np.zeros(packs * length, dtype=np.uint8)
        tokens[goes], learned[goes] = store.tokens[source], store.learned[source]
        learned[target] = 0  # nothing of its own document stands before a first token
        gaps = np.flatnonzero(filled < length)
        pack = np.concatenate([pieces.pack, gaps])
        order = np.argsort(pack, kind="stable")  # padding behind the pieces of its pack
        lengths = np.concatenate([pieces.length, length - filled[gaps]])[order]
        groups = np.concatenate([store.groups[pieces.document], np.full(len(gaps), -1)])[order]
        ends = np.searchsorted(pack[order], np.arange(packs + 1))
        return pa.RecordBatch.from_arrays(
            [
                *(_lists(np.arange(packs + 1) * length, values) for values in (tokens, learned)),
                _lists(ends, lengths.astype(np.int32)),
                *(_lists(ends, self._places[groups, column]) for column in (0, 1)),
            ],
            schema=STORED,
        )

    def _write_batch(self, batch: pa.RecordBatch) -> None:
        """Write a batch, going on in the next shard where one is full."""
        most = max(1, SHARD_TOKENS // self._length)
        while batch.num_rows:
            if self._file is None or self._rows == most:
                self._next_shard()
            part = batch.slice(0, most - self._rows)
            self._file.write_batch(part)
            self._rows += part.num_rows
            batch = batch.slice(part.num_rows)

    def _next_shard(self) -> None:
        self._close()
        self._sink = pa.OSFile(str(self._folder / SHARD.format(self._shards)), "wb")
        self._file = pa.ipc.new_file(self._sink, STORED)
        self._rows = 0
        self._shards += 1

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._sink.close()


def _lists(ends: NDArray[np.int64], values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values))


class Shards(Sequence[dict[str, NDArray[Any]]]):
    """The packs of a folder's shards, mapped, not read; a pack is the columns of `PACKS`."""

    def __init__(self, folder: Path) -> None:
        """Open the shards in the order of their names; raises DataError where one is no Arrow file."""
        self._batches: list[pa.RecordBatch] = []
        for path in sorted(folder.glob(PATTERN)):
            try:
                file = pa.ipc.open_file(pa.memory_map(str(path)))
                self._batches += [file.get_batch(i) for i in range(file.num_record_batches)]
            except pa.ArrowInvalid as err:
                raise DataError(path, "is no whole Arrow file", "pack again") from err
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))

    def __len__(self) -> int:
        """Return the number of packs."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Return one pack; a slice is not asked for."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        batch = self._batches[number]
        row = index - (self._ends[number] - batch.num_rows)
        return expand(*(batch.column(name)[row].values.to_numpy() for name in STORED.names))


def expand(
    tokens: NDArray[np.int32],
    learned: NDArray[np.uint8],
    lengths: NDArray[np.int32],
    languages: NDArray[np.int16],
    families: NDArray[np.int16],
) -> dict[str, NDArray[Any]]:
    """Return a pack as training reads it, from how it is stored; each of shape (tokens)."""
    starts = np.cumsum(lengths, dtype=np.int32) - lengths
    columns = (
        tokens,
        np.where(learned == 1, tokens, np.int32(IGNORED)),
        np.arange(len(tokens), dtype=np.int32) - np.repeat(starts, lengths),
        np.repeat(languages, lengths),
        np.repeat(families, lengths),
    )
    return dict(zip(PACKS.names, columns, strict=True))
