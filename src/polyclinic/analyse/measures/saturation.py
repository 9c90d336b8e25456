"""How early routing is settled: picks of a checkpoint against those of the last one, on fixed tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from polyclinic.analyse.tally import FloatArray, IntArray


def overlap(picks_TLK: IntArray, last_TLK: IntArray) -> FloatArray:
    """Return for each layer the mean share of a token's K picks that the last checkpoint makes too.

    Picks of one token are distinct. After router saturation in arXiv 2409.02060, section 5.1.
    """
    same = (picks_TLK[..., :, None] == last_TLK[..., None, :]).any(-1)
    return np.asarray(same.mean((0, 2)))


def same_first(picks_TLK: IntArray, last_TLK: IntArray) -> FloatArray:
    """Return for each layer the share of tokens whose heaviest pick (k = 0) is the last checkpoint's."""
    return np.asarray((picks_TLK[..., 0] == last_TLK[..., 0]).mean(0))


def saturation(picks: Mapping[str, IntArray], last: str, num_experts: int) -> dict[str, Any]:
    """Return, per checkpoint, `overlap` and `same_first` of each layer, and what blind picks would reach.

    `picks` are (T, L, K) of the same T probe tokens. Raises ValueError where shapes differ or T is 0.
    """
    final = picks[last]
    if final.shape[0] == 0 or any(one.shape != final.shape for one in picks.values()):
        raise ValueError("saturation compares the same tokens, layers and number of picks")
    curves = {
        name: {"overlap": overlap(one, final).tolist(), "same_first": same_first(one, final).tolist()}
        for name, one in picks.items()
    }
    chance = {"overlap": final.shape[2] / num_experts, "same_first": 1 / num_experts}
    return {"checkpoints": curves, "last": last, "by_chance": chance, "n": int(final.shape[0])}
