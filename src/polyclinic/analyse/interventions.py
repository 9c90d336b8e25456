"""Which interventions on a mixture's routing there are: the rows of the causal matrix."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyclinic.moe.router import UNKNOWN_FAMILY

Shares = Mapping[str, Mapping[int, NDArray[np.float64]]]  # language -> layer -> share of tokens that pick each expert


class Intervention(NamedTuple):
    """One row: what it is called, which experts are absent by layer, which expert is forced on each language."""

    facts: dict[str, Any]
    absent: Mapping[int, Collection[int]] = {}
    forced: Mapping[str, int] | None = None


def drops(shares: Shares, layers: Sequence[int]) -> Iterator[Intervention]:
    """Drop each expert in each layer, and in all of them at once; `share` is of the tokens that had picked it."""
    num_experts = len(next(iter(shares.values()))[layers[0]])
    places: list[tuple[int | str, Sequence[int]]] = [(layer, [layer]) for layer in layers]
    if len(layers) > 1:
        places.append(("all", layers))
    for name, place in places:
        for expert in range(num_experts):
            share = {code: float(np.mean([found[layer][expert] for layer in place])) for code, found in shares.items()}
            facts = {"kind": "drop", "layer": name, "expert": expert, "share": share}
            yield Intervention(facts, dict.fromkeys(place, (expert,)))


def keeps(shares: Shares, layers: Sequence[int], nums: Sequence[int]) -> Iterator[Intervention]:
    """Leave each language's most picked experts of each layer alone, `nums` of them; counted on the very texts."""
    for num in nums:
        for code, found in shares.items():
            order = {layer: np.argsort(-found[layer], kind="stable").tolist() for layer in layers}
            kept = {str(layer): sorted(ranked[:num]) for layer, ranked in order.items()}
            absent = {layer: ranked[num:] for layer, ranked in order.items()}
            yield Intervention({"kind": "keep", "language": code, "num": num, "experts": kept}, absent)


def forcings(families: Mapping[str, Any], languages: Sequence[str]) -> Iterator[Intervention]:
    """Force each family on all text, and on each language its own; a language of no family routes freely."""
    for expert, family in enumerate(families["families"]):
        facts = {"kind": "family", "expert": expert, "family": family["name"]}
        yield Intervention(facts, forced=dict.fromkeys(languages, expert))
    own = {code: families["expert_of"].get(code, UNKNOWN_FAMILY) for code in languages}
    yield Intervention({"kind": "own family", "expert_of": own}, forced=own)
