"""Packed shards as a dataset, in an order that depends on the seed and the step alone."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from polyclinic.corpus.pack.pack import META, RECORDS
from polyclinic.corpus.pack.shards import Shards
from polyclinic.errors import DataError
from polyclinic.runs import read_json


class Packs(Dataset[dict[str, Any]]):
    """All packs of a folder, mapped into memory; rows of `pack_tokens` tokens, each with its number as `pack`."""

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / META)
        self.languages: list[str] = facts["languages"]
        self.expert_of: dict[str, int] = facts["expert_of"]
        self.pack_tokens = int(facts["pack_tokens"])
        self.ordered: bool = facts.get("ordered", False)  # a pass reads them as they lie
        self._folder = folder
        self._rows = Shards(folder)
        if len(self._rows) == 0:
            raise DataError(folder, "holds no packs", "give the corpus more text")

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pack."""
        return {"pack": np.int64(index), **self._rows[index]}

    def records(self, packs: Collection[int]) -> list[str]:
        """Return the ids of the records that some packs were made of, in order."""
        wanted = [("pack", "in", set(packs))]
        return list(dict.fromkeys(pq.read_table(self._folder / RECORDS, filters=wanted)["id"].to_pylist()))


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack packs into tensors of shape (packs, tokens), and their numbers into one of shape (packs)."""
    return {k: torch.from_numpy(np.stack([r[k] for r in rows]).astype(np.int64)) for k in rows[0]}


class PackSampler(Sampler[int]):
    """Pass after pass over all packs, each in its own order (or as they lie), cut after `total` draws.

    One long epoch: a resumed run skips what was drawn and needs no state of any generator.
    """

    def __init__(self, num_packs: int, total: int, seed: int, ordered: bool = False) -> None:
        self._num_packs, self._total, self._seed, self._ordered = num_packs, total, seed, ordered

    def __len__(self) -> int:
        """Return the number of draws."""
        return self._total

    def __iter__(self) -> Iterator[int]:
        """Yield pack indices."""
        drawn = 0
        for passes in range(-(-self._total // self._num_packs)):
            if self._ordered:
                order = np.arange(self._num_packs)
            else:
                order = np.random.default_rng([self._seed, passes]).permutation(self._num_packs)
            for index in order[: self._total - drawn]:
                yield int(index)
            drawn += self._num_packs
