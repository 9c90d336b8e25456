"""Facts of an analysis as `analyse run` writes them, of simulated tokens: as many languages and layers as asked."""

from typing import Any

import numpy as np

from made_tallies import World, sees, tally, world
from polyclinic.analyse.measures.describe import describe
from polyclinic.analyse.run import plain
from polyclinic.families import load_preset
from polyclinic.languages import language

SIX = ("ar", "en", "fr", "hi", "th", "zh")
PRESET = load_preset("balanced")


def facts(codes: tuple[str, ...] = SIX, layers: int = 3, experts: int = 8, top_k: int = 2, **sizes: int) -> Any:
    """Return routing.json of a router that sees the language, more of it in later layers."""

    def router(made: World, layer: int, _: object) -> np.ndarray:
        return sees(made.language, experts, 1, 0.2 + 0.6 * layer / layers)

    made = tally(world(tuple(sorted(codes)), **sizes), [router] * layers, experts, top_k)
    names = [{"name": f"{i} <b>&{family.name}"} for i, family in enumerate(PRESET.families)][:experts]
    families = {"families": names, "expert_of": {code: PRESET.expert_of(code) % experts for code in codes}}
    found = describe(made, families, 5, 0)
    for layer in found["specific"]["layers"]:
        for row in (row for expert in layer["experts"] for row in expert):
            row["text"] = language(row["language"]).native_name if row["language"] and row["id"] % 3 else None
    own = {code: found["family"]["own_expert"][code]["mean"]["share"] for code in codes}
    forced = {"family_ids": "on", "tokens": made.num_tokens, "own_expert_unforced": own}
    text = {"documents": 9, "digest": "0" * 16}
    return plain({"family_ids": "off", **families, "own_expert": own, **found, "forced": forced, "text": text})


def causal(codes: tuple[str, ...] = SIX) -> Any:
    """Return causal.json with an expert that does something and one that does nothing."""
    change = {"change": 0.12345, "low": 0.1, "high": 0.15, "clusters": 6}
    nothing = {"change": 0.04321, "low": -0.1, "high": 0.15, "clusters": 6}
    rows = [
        {"kind": "drop", "layer": 0, "expert": 0, "share": {}, "change": dict.fromkeys(codes, change)},
        {"kind": "drop", "layer": "all", "expert": 1, "share": {}, "change": dict.fromkeys(codes, nothing)},
        {"kind": "keep", "language": "en", "num": 2, "experts": {}, "change": dict.fromkeys(codes, change)},
        {"kind": "family", "expert": 2, "family": "x", "change": dict.fromkeys(codes, nothing)},
    ]
    counted = {code: {"documents": 6, "tokens": 100, "loss": 3.0} for code in codes}
    return {"how": "next", "top_k": 2, "layers": [0], "left_out": ["a <thing>"], "rows": rows, "languages": counted}


def depth() -> Any:
    """Return depth.json of a model whose languages part at its end."""
    layers = [{"layer": i, "separation": 0.1 * i, "low": 0.05 * i, "high": 0.2 * i} for i in range(4)]
    one = {"last_layers": 2, "low": 1, "high": 3, "rise": 0.25, "explained": 0.9}
    return {"layers": layers, "recommended": one, "languages": {"en": {"documents": 8, "tokens": 800}}}
