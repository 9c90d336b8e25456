"""Circuits: experts that most tokens of a language or group go through, and the ways between them.

After Figure 3 of arXiv 2410.10626. Its ratio divides by all picks, so that K picks leave at most 1 / K
to an expert; here a share is of tokens, and 1.0 means every token, whatever K is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyclinic.analyse.measures.shares import divided, picks_GLE, tokens_G
from polyclinic.analyse.tally import FloatArray, Tally

SWEEP = tuple(tenth / 10 for tenth in range(1, 10))
LOWEST = 0.2  # from which on circuits of several languages are kept whole: those above are parts of it


class Node(NamedTuple):
    """An expert and the share of the group's tokens that have it among their picks."""

    layer: int
    expert: int
    share: float


class Edge(NamedTuple):
    """Two nodes in consecutive sparse layers and the share of tokens whose first picks go that way."""

    layer: int
    expert: int
    next_layer: int
    next_expert: int
    share: float
    independent: float  # if the two first picks did not mind each other


class Circuit(NamedTuple):
    """The circuit of a group of languages at a threshold."""

    nodes: list[Node]
    edges: list[Edge]
    tokens: int


def circuit(tally: Tally, languages: Sequence[str], tau: float) -> Circuit:
    """Return experts with a token share of at least tau, and the edges between them that any token takes."""
    members = [tally.languages.index(code) for code in languages]
    tokens = int(tokens_G(tally)[members].sum())
    share_LE = divided(picks_GLE(tally)[members].sum(0), np.array(tokens))
    nodes = [
        Node(layer, int(e), float(share_LE[place, e]))
        for place, layer in enumerate(tally.layers)
        for e in np.flatnonzero(share_LE[place] >= tau)
    ]
    follow_LEE = divided(tally.next_GLEE[members].sum(0), np.array(tokens))
    return Circuit(nodes, _edges(tally, share_LE >= tau, follow_LEE), tokens)


def _edges(tally: Tally, node_LE: Any, follow_LEE: FloatArray) -> list[Edge]:
    edges = []
    for place, follow in enumerate(follow_LEE):
        both = node_LE[place][:, None] & node_LE[place + 1][None] & (follow > 0)
        chance = np.outer(follow.sum(1), follow.sum(0))
        here, there = tally.layers[place], tally.layers[place + 1]
        edges += [
            Edge(here, int(i), there, int(j), float(follow[i, j]), float(chance[i, j]))
            for i, j in zip(*np.nonzero(both), strict=True)
        ]
    return edges


def circuits(tally: Tally, groups: Mapping[str, Sequence[str]], tau: float) -> dict[str, Any]:
    """Return `tau`, the circuit of each group, and `sweep`: nodes and edges at each tau of 0.1 to 0.9.

    A group that is no single language also has `lowest`: its circuit at 0.2, of which those at a higher
    tau are parts.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, languages in groups.items():
        nodes, edges, tokens = circuit(tally, languages, tau)
        sizes = [(value, circuit(tally, languages, value)) for value in SWEEP]
        found[name] = {
            "languages": list(languages),
            "nodes": [node._asdict() for node in nodes],
            "edges": [edge._asdict() for edge in edges],
            "sweep": [{"tau": value, "nodes": len(one.nodes), "edges": len(one.edges)} for value, one in sizes],
            "n": tokens,
        }
        if name not in tally.languages:
            low = circuit(tally, languages, LOWEST)
            found[name]["lowest"] = {
                "tau": LOWEST,
                "nodes": [node._asdict() for node in low.nodes],
                "edges": [edge._asdict() for edge in low.edges],
            }
    return {"tau": tau, "groups": found}
