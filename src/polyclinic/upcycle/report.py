"""The proof of an upcycled checkpoint as a section of the report."""

from collections.abc import Mapping
from html import escape
from typing import Any

from polyclinic.markup import Fragment, facts
from polyclinic.upcycle.plan import start

LEAD = (
    "Before training, the mixture must compute what its dense parent computes, unless a choice of the recipe moves it "
    "away, and every tensor taken over must be the parent's, bit for bit. Alike experts would hide a fault of routing, "
    "so one figure moves them apart first."
)
OTHERS = (
    "hold as ever: each tensor that was to be copied is the parent's, and experts apart give what a plain loop gives; "
    "the difference of logits is reported, not judged"
)


def fragment(proof: Mapping[str, Any]) -> Fragment:
    """Return the section for the facts of an upcycle step."""
    pairs = [
        ("experts per sparse layer", str(proof["num_experts"])),
        ("sparse layers", ", ".join(map(str, proof["sparse_layers"]))),
        ("at the start", escape(start(proof))),
        ("largest logit difference to the parent", f"{proof['difference']:.1e}"),
        ("largest |logit|", f"{proof['largest_logit']:.2f}"),
        ("the parent's own difference, batch 1 against 2", f"{proof['dense_batch_difference']:.1e}"),
        ("largest logit difference in bf16, for scale", f"{proof['bf16_difference']:.1e}"),
        ("tensors that are the parent's, bit for bit", str(proof["copied_tensors"])),
        ("experts apart: difference to a plain loop", f"{proof['mixture_difference']:.1e}"),
        ("experts apart: largest output of a block", f"{proof['largest_output']:.2g}"),
    ]
    if not proof["equal_by_design"]:
        pairs.insert(3, ("the other proofs", OTHERS))
    pairs += [("note", escape(note)) for note in proof["notes"]]
    return Fragment("Proof of the conversion", LEAD, facts(pairs))
