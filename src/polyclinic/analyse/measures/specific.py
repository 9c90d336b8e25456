"""The token ids most specific to each expert."""

from typing import Any

import numpy as np

from polyclinic.analyse.measures.shares import divided
from polyclinic.analyse.tally import FloatArray, IntArray, Tally

FEWEST = 10  # tokens of an id, below which it says nothing
PRIOR = 10.0  # tokens that stand in for what was not seen, at the expert's share of all tokens
LISTED = 20


def log_odds(count: IntArray, total: IntArray, load: FloatArray) -> FloatArray:
    """Return log odds of the expert for an id minus those for any token, in nats.

    The share of the id is smoothed with PRIOR tokens at the expert's load (Monroe, Colaresi and Quinn
    2008, Political Analysis 16:372-403), so a rare id cannot lead by luck.
    """
    share = (count + PRIOR * load) / (total + PRIOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.log(share) - np.log1p(-share) - np.log(load) + np.log1p(-load)
    return np.where((load > 0) & (load < 1), odds, 0.0)


def specific(tally: Tally) -> dict[str, Any]:
    """Return `layers` with `experts`: for each a list of ids, the most specific first.

    An id has `id`, `count` (tokens at this expert), `n` (tokens), `lift` (its share at the expert over the
    expert's share of all tokens), `log_odds` and `language` (which has most of it, or None). Ids with fewer
    than 10 tokens or no more than the expert's share are left out.
    """
    first_LE = tally.first_BLE.sum(0)
    load_LE = divided(first_LE, first_LE.sum(1, keepdims=True))
    layers = []
    for place, layer in enumerate(tally.layers):
        experts = [_ranked(tally, place, expert, load_LE[place, expert]) for expert in range(tally.num_experts)]
        layers.append({"layer": layer, "experts": experts})
    return {"layers": layers, "n": tally.num_tokens}


def _ranked(tally: Tally, place: int, expert: int, load: float) -> list[dict[str, Any]]:
    top = tally.top_tokens
    here = (place, expert)
    ids, count, total, language = top.id_LES[here], top.count_LES[here], top.total_LES[here], top.language_LES[here]
    odds = log_odds(count, total, np.full(len(ids), load))
    there = np.flatnonzero((ids >= 0) & (total >= FEWEST) & (odds > 0))
    return [
        {
            "id": int(ids[i]),
            "count": int(count[i]),
            "n": int(total[i]),
            "lift": float(count[i] / total[i] / load),
            "log_odds": float(odds[i]),
            "language": tally.languages[language[i]] if language[i] >= 0 else None,
        }
        for i in there[np.lexsort((ids[there], -odds[there]))][:LISTED]
    ]
