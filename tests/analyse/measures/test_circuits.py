"""Planted circuits are found, and nothing beside them."""

import numpy as np
import pytest

from made_tallies import World, tally, world
from polyclinic.analyse.measures.circuits import circuit, circuits
from polyclinic.analyse.tally import Tally

WAYS = {"en": [0, 2, 1], "fr": [0, 3, 1], "ru": [0, 2, 4], "zh": [5, 5, 5]}  # expert of each layer
LAYERS = [1, 4, 5]


def planted(top_k: int = 1) -> Tally:
    def router(layer: int) -> object:
        def route(made: World, *_: object) -> np.ndarray:
            out = np.full((len(made), 6), 0.04)
            own = np.array([WAYS[code][layer] for code in made.languages])[made.language]
            out[np.arange(len(made)), own] = 0.8
            return out

        return route

    return tally(world(), [router(layer) for layer in range(3)], num_experts=6, top_k=top_k, layers=LAYERS)  # type: ignore[misc]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("code", WAYS)
def test_a_language_goes_the_planted_way_and_no_other(code: str, top_k: int) -> None:
    found = circuit(planted(top_k), [code], 0.5)
    way = WAYS[code]
    assert [(n.layer, n.expert) for n in found.nodes] == list(zip(LAYERS, way, strict=True))
    ends = [(e.layer, e.expert, e.next_layer, e.next_expert) for e in found.edges]
    assert ends == [(1, way[0], 4, way[1]), (4, way[1], 5, way[2])]
    assert found.tokens == 6400


def test_an_edge_carries_the_share_of_tokens_that_take_it() -> None:
    edge = circuit(planted(), ["en"], 0.5).edges[0]
    assert edge.share == pytest.approx(0.8 * 0.8, abs=0.03)
    assert edge.independent == pytest.approx(0.8 * 0.8, abs=0.03)


def test_a_group_keeps_what_its_languages_share() -> None:
    found = circuit(planted(), ["en", "fr", "ru"], 0.5)
    assert [(n.layer, n.expert) for n in found.nodes] == [(1, 0), (4, 2), (5, 1)]
    assert found.nodes[1].share == pytest.approx((0.8 + 0.8 + 0.04) / 3, abs=0.02)
    assert found.tokens == 3 * 6400


def test_a_share_of_one_is_every_token_even_with_two_picks() -> None:
    always = tally(world(), [lambda w, *_: np.tile([1.0, 1e-9, 1e-9, 1e-9], (len(w), 1))], top_k=2)
    assert circuit(always, ["en"], 0.99).nodes[0] == (0, 0, 1.0)


def test_the_sweep_thins_out() -> None:
    facts = circuits(planted(), {"en": ["en"], "all": list(WAYS)}, 0.5)["groups"]
    for group in facts.values():
        sizes = [step["nodes"] for step in group["sweep"]]
        assert sizes == sorted(sizes, reverse=True)
    assert [step["nodes"] for step in facts["en"]["sweep"]] == [3, 3, 3, 3, 3, 3, 3, pytest.approx(3, abs=3), 0]


def test_a_way_that_no_token_takes_is_no_edge() -> None:
    def always(made: World, *_: object) -> np.ndarray:
        return np.eye(4)[made.language]

    found = circuit(tally(world(), [always, always]), ["en", "fr"], 0.4)
    assert [(e.expert, e.next_expert) for e in found.edges] == [(0, 0), (1, 1)]


def test_a_group_keeps_its_circuit_at_the_lowest_tau_of_which_higher_ones_are_parts() -> None:
    made = planted()
    facts = circuits(made, {"en": ["en"], "all": list(WAYS)}, 0.5)["groups"]
    assert "lowest" not in facts["en"]
    low = facts["all"]["lowest"]
    assert low["nodes"] == [node._asdict() for node in circuit(made, list(WAYS), low["tau"]).nodes]
    above = [node for node in low["nodes"] if node["share"] >= 0.5]
    assert above == facts["all"]["nodes"]
    assert len(low["nodes"]) > len(above)
