"""How evenly the experts of a layer are used, and how sure the router is."""

from typing import Any

import numpy as np

from polyclinic.analyse.measures.shares import divided, entropy, tokens_G
from polyclinic.analyse.tally import FloatArray, Tally


def gini(loads: FloatArray) -> FloatArray:
    """Return the Gini coefficient over the last axis: 0 all equal, (E - 1) / E one expert takes all."""
    ordered = np.sort(loads, axis=-1)
    num = loads.shape[-1]
    weights = 2 * np.arange(1, num + 1) - num - 1
    return divided((ordered * weights).sum(-1), num * ordered.sum(-1))


def max_violation(loads: FloatArray) -> FloatArray:
    """Return the largest load over the mean load, minus 1 (MaxVio, arXiv 2408.15664, section 4.1)."""
    return np.asarray(divided(loads.max(-1), loads.mean(-1)) - (loads.sum(-1) > 0))


def balance(tally: Tally) -> dict[str, Any]:
    """Return `layers` and `languages` with their `n` of tokens.

    Layers: `load` (share of all picks), `gini`, `max_violation`, `entropy` of the load in nats and
    `of_most`, that over log E. Languages, one value a layer: `entropy`, mean entropy of the router's
    distribution in nats, and `margin`, mean probability of the last pick minus the best not picked.
    """
    load_LE = tally.picks_BLE.sum(0).astype(np.float64)
    most = np.log(tally.num_experts)
    spread_L = entropy(load_LE)
    layers = [
        {
            "layer": layer,
            "load": divided(load, load.sum()).tolist(),
            "gini": float(gini(load)),
            "max_violation": float(max_violation(load)),
            "entropy": float(spread),
            "of_most": float(spread / most) if most > 0 else 1.0,
        }
        for layer, load, spread in zip(tally.layers, load_LE, spread_L, strict=True)
    ]
    tokens = tokens_G(tally)
    entropies, margins = divided(tally.entropy_GL, tokens[:, None]), divided(tally.margin_GL, tokens[:, None])
    languages = {
        code: {"entropy": entropies[i].tolist(), "margin": margins[i].tolist(), "n": int(tokens[i])}
        for i, code in enumerate(tally.languages)
    }
    return {"layers": layers, "languages": languages, "n": tally.num_tokens}
