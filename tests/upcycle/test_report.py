"""The section of the report says what was proven, or that nothing was."""

import re
from typing import Any

import pytest

from polyclinic.upcycle.report import LEAD, fragment

PROOF = {
    "sparse_layers": [22, 23],
    "num_experts": 7,
    "bytes": 10,
    "difference": 4.76e-07,
    "largest_logit": 12.345,
    "dense_batch_difference": 3.21e-06,
    "mixture_difference": 1.98e-07,
    "largest_output": 0.9,
}


def shown(proof: dict[str, Any]) -> dict[str, str]:
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", fragment(proof).html))


def test_every_figure_of_the_proof_stands_beside_its_name() -> None:
    facts = shown(PROOF)
    assert facts["sparse layers"] == "22, 23"
    assert facts["experts per sparse layer"] == "7"
    named = {"to the parent": "difference", "batch 1": "dense_batch_difference", "loop": "mixture_difference"}
    for name, key in named.items():
        (value,) = [v for k, v in facts.items() if name in k]
        assert float(value) == pytest.approx(PROOF[key], rel=0.05)
    assert float(facts["largest |logit|"]) == pytest.approx(12.345, abs=0.005)


def test_without_a_proof_the_section_says_why_there_is_none() -> None:
    facts = shown({"sparse_layers": [1], "num_experts": 7, "bytes": 10})
    assert facts["sparse layers"] == "1"
    assert "not run" in facts["proof"]
    assert "noise" in facts["proof"]
    assert not [name for name in facts if "difference" in name]


def test_the_lead_explains_both_figures() -> None:
    assert fragment(PROOF).lead == LEAD
    assert "parent" in LEAD
    assert "experts" in LEAD
