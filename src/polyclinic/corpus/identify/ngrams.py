"""A linear model over hashed character n-grams, in whole numbers: the same verdict on every machine.

A text is its letters in lower case (`letters.py`). Each of its runs of 1 to ORDERS characters is
hashed to a row of a table of small integers, one column a language; a language's score is the sum
of its column over those rows, over the square root of their number. Feature hashing: Weinberger
et al. 2009, arXiv 0902.2206.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyclinic.corpus.identify.letters import letters
from polyclinic.errors import DataError

MAGIC = b"polyclinic language identifier 1\n"
ORDERS = 4
MAX_HEADER = 65_536
MOST = 20_000  # n-grams of a text: sums of 8-bit numbers over so many are exact in 32-bit floats
MILLI = 1000  # scores are in thousandths of a nat
TRY = "train it again with polyclinic corpus train-identifier"


def read(text: str, bits: int) -> NDArray[np.int64]:
    """Return the n-grams of a text, hashed to numbers of `bits` bits: the rows of a model's table."""
    points, _ = letters(text)
    sizes = [len(points) - order for order in range(min(ORDERS, len(points)))]
    mixed, at, gram = np.empty(sum(sizes), dtype=np.uint32), 0, points
    for order, size in enumerate(sizes):
        if order:
            gram = gram[:-1] * np.uint32(0x85EBCA6B)
            gram += points[order:]
        np.add(gram, np.uint32((order + 1) * 0x27D4EB2F), out=mixed[at : at + size])
        at += size
    mixed = mixed[:MOST]  # all orders at once from here on, and in place: a call costs more than its numbers
    mixed *= np.uint32(0x9E3779B1)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0xC2B2AE35)
    mixed >>= np.uint32(32 - bits)
    return mixed.astype(np.int64)


class Model:
    """The table of a trained model.

    `weights` is int8 (2^bits, languages) in units of 1/`scale` nat; `scripts` are those that each
    language's training text was in.
    """

    def __init__(
        self, labels: Sequence[str], scripts: Mapping[str, Sequence[str]], scale: int, weights: NDArray[np.int8]
    ) -> None:
        self.labels = tuple(labels)
        self.scripts = {code: frozenset(scripts[code]) for code in labels}
        self.scale = scale
        self.weights = weights
        self.bits = len(weights).bit_length() - 1

    @cached_property
    def _floats(self) -> NDArray[np.float32]:
        """The weights as floats that hold whole numbers: sums by BLAS are exact, in whatever order."""
        return self.weights.astype(np.float32)

    def scores(self, rows: NDArray[np.int64]) -> list[int]:
        """Return each language's score, in thousandths of a nat, for what `read` gave."""
        sums = np.ones(len(rows), dtype=np.float32) @ self._floats.take(rows, axis=0)
        root = self.scale * math.isqrt(len(rows) * MILLI * MILLI)
        return [int(value) * MILLI * MILLI // root for value in sums.tolist()]

    def save(self, path: Path) -> None:
        """Write the model: a line that says what it is, a line of JSON, the table."""
        scripts = {code: sorted(self.scripts[code]) for code in self.labels}
        header = {"labels": self.labels, "scripts": scripts, "scale": self.scale, "bits": self.bits}
        with path.open("wb") as file:
            file.write(MAGIC + json.dumps(header).encode() + b"\n" + self.weights.tobytes())


def load(path: Traversable) -> Model:
    """Read a model that `save` wrote; raises DataError where it is none or is damaged."""
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DataError(path, "the identifier cannot be read", "check corpus.identifier") from err
    end = data.find(b"\n", len(MAGIC), MAX_HEADER)
    if not data.startswith(MAGIC) or end < 0:
        raise DataError(path, "no language identifier of ours", TRY)
    try:
        header: dict[str, Any] = json.loads(data[len(MAGIC) : end])
        labels, bits, scale = header["labels"], int(header["bits"]), int(header["scale"])
        if not 8 <= bits <= 24 or scale < 1 or len(data) - end - 1 != len(labels) << bits:  # noqa: PLR2004
            raise ValueError("table and header differ")
        table = np.frombuffer(data, dtype=np.int8, offset=end + 1).reshape(1 << bits, len(labels))
        return Model(labels, header["scripts"], scale, table)
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(path, "the identifier is damaged", TRY) from err
