"""Held-out loss per language, of one model or of two side by side."""

from collections.abc import Mapping
from html import escape
from typing import Any

from polyclinic.languages import language
from polyclinic.markup import Fragment, native, number, table

LEAD = "Bits per byte of unseen health text: how many bits the model needs to guess each byte, lower is better."
# What stands behind a comparison, by the name that the second model was given.
MEANS = {
    "mixture": " The dense base is the model before experts; the mixture is the same model after training with them. "
    "The mixture has seen more tokens, so the difference is what that training bought, not what experts alone are "
    "worth.",
    "dense": " This is a baseline without experts: the dense base, and the same model trained further on the texts "
    "that a mixture would have been trained on.",
}
SHOWN = {"base": "dense base", "dense": "dense, trained further"}


def loss(result: Mapping[str, Any]) -> Fragment:
    """Return held-out loss per language; with two models also their difference."""
    names = list(result["loss"])
    last = result["loss"][names[-1]]
    rows = []
    for code in last:
        entry = language(code)
        values = [result["loss"][name].get(code, {}).get("bits_per_byte") for name in names]
        cells = [code, f"{native(entry)} <small>{escape(entry.name)}</small>", number(last[code]["documents"], 0)]
        cells += [number(value) for value in values]
        if len(values) > 1:
            cells.append(f"{values[-1] - values[0]:+.2f}" if values[0] is not None else "&ndash;")
        rows.append(cells)
    head = ["code", "language", "texts", *(escape(SHOWN.get(name, name)) for name in names)]
    head += ["difference"] if len(names) > 1 else []
    return Fragment(
        "How well it predicts unseen text", LEAD + MEANS.get(names[-1], ""), table(head, rows, text_columns=2)
    )
