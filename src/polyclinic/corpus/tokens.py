"""Encoded documents on disk, so that packing needs memory by the number of documents, not of tokens.

Token ids and what carries loss lie in files that are mapped into memory; in memory stay 24 bytes a
document: its length, its group, and where its tokens and its id begin.
"""

import shutil
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the label of a token that carries no loss, as in torch's cross entropy


class Store:
    """Documents in the order in which they were added; leaving the `with` removes the files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._files = [(folder / name).open("wb") for name in ("tokens", "learned", "ids")]
        self._lengths, self._groups, self._id_ends = array("i"), array("i"), array("q", [0])

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
        for file, piece in zip(self._files, (np.asarray(tokens, dtype=np.int32), learned, name), strict=True):
            file.write(piece)
        self._lengths.append(len(tokens))
        self._groups.append(group)
        self._id_ends.append(self._id_ends[-1] + len(name))

    def seal(self) -> None:
        """Map what was added; nothing can be added after."""
        for file in self._files:
            file.close()
        self.lengths: NDArray[np.int32] = np.frombuffer(self._lengths, dtype=np.int32)
        self.groups: NDArray[np.int32] = np.frombuffer(self._groups, dtype=np.int32)
        self.starts: NDArray[np.int64] = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        self.tokens = self._mapped("tokens", np.int32)
        self.learned = self._mapped("learned", np.uint8)

    def _mapped(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        path = self._folder / name
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, kind)
        return np.memmap(path, dtype=kind, mode="r")

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Return the ids of some documents, by their numbers."""
        with (self._folder / "ids").open("rb") as file:
            out = []
            for number in documents.tolist():
                first, end = self._id_ends[number], self._id_ends[number + 1]
                file.seek(first)
                out.append(file.read(end - first).decode())
        return out
