"""Encoded documents on disk, so that what memory holds grows neither with tokens nor with documents.

Token ids, what carries loss, and of each document its length, its group and where its tokens and
its id begin lie in files that are mapped into memory.
"""

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the label of a token that carries no loss, as in torch's cross entropy
# Of each document: tokens, group, where its tokens begin, where its id begins and ends.
ROW = np.dtype([("length", "<i4"), ("group", "<i4"), ("start", "<i8"), ("id_start", "<i8"), ("id_end", "<i8")])
_AS_BYTES = struct.Struct("<iiqqq")


class Store:
    """Documents in the order in which they were added; leaving the `with` removes the files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._files = [(folder / name).open("wb") for name in ("tokens", "learned", "ids", "rows")]
        self._tokens = self._ids = 0  # of all documents so far: tokens, bytes of ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, record: str, group: int, tokens: Sequence[int], labels: Sequence[int]) -> None:
        """Append one document; a label other than -100 marks a token that carries loss."""
        name = record.encode()
        learned = np.asarray(labels, dtype=np.int64) != IGNORED
        row = _AS_BYTES.pack(len(tokens), group, self._tokens, self._ids, self._ids + len(name))
        pieces = (np.asarray(tokens, dtype=np.int32), learned, name, row)
        for file, piece in zip(self._files, pieces, strict=True):
            file.write(piece)
        self._tokens += len(tokens)
        self._ids += len(name)

    def seal(self) -> None:
        """Map what was added; nothing can be added after."""
        for file in self._files:
            file.close()
        self._rows = self._mapped("rows", ROW)
        self.lengths: NDArray[np.int32] = self._rows["length"]
        self.groups: NDArray[np.int32] = self._rows["group"]
        self.starts: NDArray[np.int64] = self._rows["start"]
        self.tokens = self._mapped("tokens", np.dtype(np.int32))
        self.learned = self._mapped("learned", np.dtype(np.uint8))

    def _mapped(self, name: str, kind: np.dtype[Any]) -> NDArray[Any]:
        path = self._folder / name
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, kind)
        return np.memmap(path, dtype=kind, mode="r").view(np.ndarray)

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Return the ids of some documents, by their numbers."""
        places = self._rows[documents]
        with (self._folder / "ids").open("rb") as file:
            out = []
            for first, end in zip(places["id_start"].tolist(), places["id_end"].tolist(), strict=True):
                file.seek(first)
                out.append(file.read(end - first).decode())
        return out
