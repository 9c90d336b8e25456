"""All measures of a tally as one object of plain values, each with its number of tokens."""

from collections.abc import Mapping
from typing import Any

from polyclinic.analyse.measures.balance import balance
from polyclinic.analyse.measures.circuits import circuits
from polyclinic.analyse.measures.coactivation import together
from polyclinic.analyse.measures.context import context
from polyclinic.analyse.measures.divergence import divergence
from polyclinic.analyse.measures.family import family
from polyclinic.analyse.measures.information import as_facts, language_information, token_information
from polyclinic.analyse.measures.position import position
from polyclinic.analyse.measures.shares import token_shares_GLE, tokens_G
from polyclinic.analyse.measures.specific import specific
from polyclinic.analyse.tally import Tally

TAU = 0.5


def describe(tally: Tally, families: Mapping[str, Any] | None, shuffles: int, seed: int) -> dict[str, Any]:
    """Return what a tally says, ready for JSON; `families` holds `families` and `expert_of`, None where unknown.

    `tokens`, `tokens_of` (by language), `layers_of` the model, `num_experts`, `top_k`, `shuffles`, `seed`
    `shares`         by language: share of tokens with the expert among the picks [layer][expert], and n
    `balance`        measures/balance.py
    `divergence`     measures/divergence.py
    `information`    `first_pick` and `all_picks`, each with I(E;L), I(E;T), I(E;T|L), I(E;L|T): their
                     `layers` (estimate, null, most, score, interval, p_value), `depth`, `n`, `buckets`;
                     null where no token id is frequent enough, or picks were not counted by id
    `context`        as one of `information`: 1 - H(E|T, previous) / H(E|T)
    `position`, `coactivation`, `specific`, `circuits` (at a token share of 0.5, by language and by family)
    `family`         measures/family.py, or null
    """
    tokens = dict(zip(tally.languages, tokens_G(tally).tolist(), strict=True))
    shares = zip(tally.languages, token_shares_GLE(tally).tolist(), strict=True)
    before = context(tally, shuffles, seed)
    return {
        "tokens": tally.num_tokens,
        "tokens_of": tokens,
        "layers_of": list(tally.layers),
        "num_experts": tally.num_experts,
        "top_k": tally.top_k,
        "shuffles": shuffles,
        "seed": seed,
        "shares": [{"language": code, "layers": share, "n": tokens[code]} for code, share in shares],
        "balance": balance(tally),
        "divergence": divergence(tally, shuffles, seed),
        "information": {
            "first_pick": _information(tally, False, shuffles, seed),
            "all_picks": _information(tally, True, shuffles, seed),
        },
        "context": as_facts(before, tally.layers) if before else None,
        "position": position(tally),
        "coactivation": together(tally),
        "specific": specific(tally),
        "circuits": circuits(tally, _groups(tally, families), TAU),
        "family": family(tally, families, seed) if families else None,
    }


def _information(tally: Tally, every: bool, shuffles: int, seed: int) -> dict[str, Any]:
    """Return the four measures over the first pick or over every pick; by id only where that was counted."""
    found = {"I(E;L)": language_information(tally, every, shuffles, seed)}
    if not every or len(tally.shared.counts.picks_N):
        found |= token_information(tally, every, shuffles, seed)
    names = ("I(E;L)", "I(E;T)", "I(E;T|L)", "I(E;L|T)")
    return {name: as_facts(found[name], tally.layers) if name in found else None for name in names}


def _groups(tally: Tally, families: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return each language alone, all together, and the languages of each family."""
    groups = {code: [code] for code in tally.languages}
    groups["all"] = list(tally.languages)
    if families:
        for number, one in enumerate(families["families"]):
            members = [code for code in tally.languages if families["expert_of"].get(code) == number]
            if members:
                groups[f"family: {one['name']}"] = members
    return groups
