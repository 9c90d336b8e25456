"""Families and their experts: which share goes where, and whether the own expert is picked unforced."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from polyclinic.analyse.measures.association import interval
from polyclinic.analyse.measures.shares import divided, picks_GLE, tokens_G
from polyclinic.analyse.tally import FloatArray, IntArray, Tally

RESAMPLES = 1000


def family_shares(tally: Tally, expert_of: Mapping[str, int], num_families: int) -> tuple[FloatArray, IntArray]:
    """Return token shares [family, layer, expert], experts counted among a token's picks, and each family's tokens."""
    picks = np.zeros((num_families, len(tally.layers), tally.num_experts), dtype=np.int64)
    tokens = np.zeros(num_families, dtype=np.int64)
    for code, of_language, size in zip(tally.languages, picks_GLE(tally), tokens_G(tally), strict=True):
        if code in expert_of:
            picks[expert_of[code]] += of_language
            tokens[expert_of[code]] += size
    return divided(picks, tokens[:, None, None]), tokens


def own_share(tally: Tally, expert_of: Mapping[str, int], codes: list[str], seed: int) -> dict[str, Any]:
    """Return `layers` (share, interval) of the languages' tokens whose own expert is picked, their `mean`, and `n`.

    The interval is a percentile bootstrap over numbers of buckets, in which translations move together;
    None with fewer than two numbers.
    """
    members = [i for i, code in enumerate(tally.languages) if code in codes]
    buckets = np.flatnonzero(np.isin(tally.bucket_language, members))
    own = np.array([expert_of.get(code, 0) for code in tally.languages])[tally.bucket_language[buckets]]
    numbers, place = np.unique(tally.bucket_number[buckets], return_inverse=True)
    hits_NL = np.zeros((len(numbers), len(tally.layers)))
    np.add.at(hits_NL, place, tally.picks_BLE[buckets, :, own])
    size_N = np.bincount(place, tally.tokens_B[buckets], len(numbers))
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=RESAMPLES)
    drawn = divided(draws @ hits_NL, (draws @ size_N)[:, None])
    share = divided(hits_NL.sum(0), np.array(size_N.sum()))
    return {
        "layers": [{"share": float(s), "interval": interval(drawn[:, i], len(numbers))} for i, s in enumerate(share)],
        "mean": {"share": float(share.mean()), "interval": interval(drawn.mean(1), len(numbers))},
        "n": int(size_N.sum()),
        "buckets": len(numbers),
    }


def family(tally: Tally, families: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return `shares` per family, `own_expert` unforced per language and over all, and the line of `chance` K / E.

    `families` has `families` (each with its `name`, in the order of experts) and `expert_of` by language.
    """
    expert_of, names = families["expert_of"], [one["name"] for one in families["families"]]
    shares, tokens = family_shares(tally, expert_of, len(names))
    sizes = dict(zip(tally.languages, tokens_G(tally), strict=True))
    served = [code for code in tally.languages if code in expert_of and sizes[code]]
    rows = [
        {"family": name, "layers": shares[i].tolist(), "n": int(tokens[i])} for i, name in enumerate(names) if tokens[i]
    ]
    return {
        "shares": rows,
        "own_expert": {code: own_share(tally, expert_of, [code], seed) for code in served},
        "own_expert_of_all": own_share(tally, expert_of, served, seed) if served else None,
        "chance": tally.top_k / tally.num_experts,
    }
