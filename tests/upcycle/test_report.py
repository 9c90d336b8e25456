"""The section of the report says what was proven, and by what the start differs where it is meant to."""

import re
from typing import Any

import pytest

from polyclinic.upcycle.report import LEAD, OTHERS, fragment

PROOF: dict[str, Any] = {
    "sparse_layers": [22, 23],
    "num_experts": 7,
    "bytes": 10,
    "equal_by_design": True,
    "difference": 4.76e-07,
    "largest_logit": 12.345,
    "dense_batch_difference": 3.21e-06,
    "copied_tensors": 417,
    "mixture_difference": 1.98e-07,
    "largest_output": 0.912,
    "bf16_difference": 4.7e-02,
    "differs_by": [],
    "notes": [],
}
MOVED = {"equal_by_design": False, "differs_by": ["weights of the picks not normalised", "a <b>bold</b> choice"]}


def shown(**changes: Any) -> list[tuple[str, str]]:
    return re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", fragment(PROOF | changes).html)


@pytest.mark.parametrize("changes", [{}, MOVED])
def test_every_figure_of_the_proof_stands_beside_its_name(changes: dict[str, Any]) -> None:
    rows = shown(**changes)
    facts = dict(rows)
    assert len(facts) == len(rows)
    assert facts["sparse layers"] == "22, 23"
    assert facts["experts per sparse layer"] == "7"
    named = {
        "logit difference to the parent": "difference",
        "largest |logit|": "largest_logit",
        "batch 1": "dense_batch_difference",
        "bit for bit": "copied_tensors",
        "loop": "mixture_difference",
        "largest output": "largest_output",
        "bf16": "bf16_difference",
    }
    for name, key in named.items():
        (value,) = [v for k, v in facts.items() if name in k]
        assert float(value) == pytest.approx(PROOF[key], rel=0.05)


def test_a_mixture_that_begins_as_its_parent_is_said_to() -> None:
    facts = dict(shown())
    assert facts["at the start"] == "equal to the parent"
    assert "the other proofs" not in facts


def test_one_that_differs_by_choice_says_by_which_and_that_the_other_proofs_hold() -> None:
    facts = dict(shown(**MOVED))
    assert facts["at the start"].startswith("differs from the parent by choice: weights of the picks not normalised, ")
    assert facts["the other proofs"] == OTHERS
    assert "hold" in OTHERS
    assert "not judged" in OTHERS


def test_every_note_is_shown_and_nothing_can_break_out_of_the_page() -> None:
    rows = shown(**MOVED, notes=["a window of <i>8</i>", "another"])
    assert [value for name, value in rows if name == "note"] == ["a window of &lt;i&gt;8&lt;/i&gt;", "another"]
    assert "a &lt;b&gt;bold&lt;/b&gt; choice" in dict(rows)["at the start"]
    assert not [name for name, _ in shown() if name == "note"]


def test_the_lead_explains_both_figures() -> None:
    assert fragment(PROOF).lead == LEAD
    assert "parent" in LEAD
    assert "experts" in LEAD
