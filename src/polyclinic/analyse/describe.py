"""A tally as the facts of the report."""

from typing import Any

import numpy as np

from polyclinic.analyse.information import layer_information
from polyclinic.analyse.tally import Tally


def describe(tally: Tally, families: dict[str, Any], shuffles: int, seed: int) -> dict[str, Any]:
    """Turn counts into shares, loads and information per layer; whole buckets are shuffled.

    `families` has the keys `families` and `expert_of`, both empty for a mixture without families.
    """
    spoken = [tally.languages[i] for i in tally.bucket_language]
    shares: dict[str, list[dict[str, Any]]] = {}
    layers = []
    for position, layer in enumerate(tally.layers):
        info = layer_information(layer, tally.first_BLE[:, position], spoken, shuffles, seed)
        load_E = tally.picks_BLE[:, position].sum(0)
        layers.append({**info._asdict(), "load": (load_E / load_E.sum()).round(6).tolist()})
        shares[str(layer)] = [
            {"language": code, "shares": (row_E / row_E.sum()).round(6).tolist()}
            for code, row_E in zip(tally.languages, _by_language(tally, tally.picks_BLE[:, position]), strict=True)
        ]
    return {
        "top_k": tally.top_k,
        "experts": tally.num_experts,
        "layers": layers,
        "shares": shares,
        "tokens": tally.num_tokens,
        "tokens_of": dict(zip(tally.languages, _by_language(tally, tally.tokens_B).tolist(), strict=True)),
        "own_expert": own_expert(tally, families["expert_of"]),
        "families": families["families"],
        "expert_of": families["expert_of"],
    }


def own_expert(tally: Tally, expert_of: dict[str, int]) -> dict[str, float]:
    """Return, per language with a family, the share of tokens with its expert among the unforced picks.

    Mean over sparse layers.
    """
    tokens_G = _by_language(tally, tally.tokens_B)
    shares_G = tally.own_GL.mean(1) / tokens_G
    return {code: float(share) for code, share in zip(tally.languages, shares_G, strict=True) if code in expert_of}


def _by_language(tally: Tally, counts_B: Any) -> Any:
    """Add counts of buckets up to languages."""
    out = np.zeros((len(tally.languages), *counts_B.shape[1:]), dtype=counts_B.dtype)
    np.add.at(out, tally.bucket_language, counts_B)
    return out
