"""The proof of an upcycled checkpoint as a section of the report."""

from collections.abc import Mapping
from typing import Any

from polyclinic.markup import Fragment, facts

LEAD = (
    "Before training, the mixture must compute exactly what its dense parent computes. The second figure moves the "
    "experts apart first, since identical experts would hide a fault of routing."
)


def fragment(proof: Mapping[str, Any]) -> Fragment:
    """Return the section for the facts of an upcycle step."""
    layers = ", ".join(map(str, proof["sparse_layers"]))
    pairs = [("experts per sparse layer", str(proof["num_experts"])), ("sparse layers", layers)]
    if "difference" in proof:
        pairs += [
            ("largest logit difference to the parent", f"{proof['difference']:.1e}"),
            ("largest |logit|", f"{proof['largest_logit']:.2f}"),
            ("the parent's own difference, batch 1 against 2", f"{proof['dense_batch_difference']:.1e}"),
            ("experts apart: difference to a plain loop", f"{proof['mixture_difference']:.1e}"),
        ]
    else:
        pairs.append(("proof", "not run: noise was added to the experts, so they differ on purpose"))
    return Fragment("Proof of the conversion", LEAD, facts(pairs))
