"""The report as one HTML file: no outside request, every script and direction, light and dark."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polyclinic.corpus import starter
from polyclinic.languages import language
from polyclinic.markup import Fragment, details, facts, native, whole

INTRO = (
    "This model is one house with many specialists: in its last layers it has several experts, and each family of "
    "languages has one of its own. A router sends every piece of text to a few experts. This page says which expert "
    "serves which language, and how well the model does in each."
)
DENSE_INTRO = (
    "This model is a baseline without experts: the dense base, trained further on the texts that a mixture of family "
    "experts would have been trained on. This page says how well it does in each language."
)
ABLATION_INTRO = (
    "Which text is worth what: small models that differ only in what they were tuned on, scored on text none of them "
    "saw. This page says what the text of each language and of each category does."
)

SCORES_INTRO = (
    "How well a model answers medical exam questions, language by language, and what each figure is worth: intervals, "
    "chance, the best constant answer, and what was not asked."
)

ROUTES_INTRO = (
    "Which experts of a mixture serve which language, and whether that is about language: each figure with what it "
    "says, what it rests on, how to read it, and a table. Pictures and rows lie in the folder figures beside this page."
)


def page(name: str, cards: Sequence[tuple[str, str]], fragments: Sequence[Fragment], recipe: Mapping[str, Any]) -> str:
    """Return the whole page."""
    intro = DENSE_INTRO if recipe.get("baseline") == "dense" else INTRO
    intro = ABLATION_INTRO if recipe.get("ablate") else intro
    return joined(name, intro, cards, fragments, recipe)


def scores_page(
    name: str, cards: Sequence[tuple[str, str]], fragments: Sequence[Fragment], settings: Mapping[str, Any]
) -> str:
    """Return the page of scores alone."""
    return joined(name, SCORES_INTRO, cards, fragments, settings)


def routes_page(
    name: str, cards: Sequence[tuple[str, str]], fragments: Sequence[Fragment], settings: Mapping[str, Any]
) -> str:
    """Return the page of routing alone."""
    return joined(name, ROUTES_INTRO, cards, fragments, settings)


def joined(
    name: str,
    intro: str,
    cards: Sequence[tuple[str, str]],
    fragments: Sequence[Fragment],
    recipe: Mapping[str, Any],
) -> str:
    """Return a page: what it is, the warning, the figures above all others, sections and settings."""
    sections = "".join(
        f'<section><h2>{escape(f.title)}</h2><p class="lead">{escape(f.lead)}</p>{f.html}</section>' for f in fragments
    )
    settings = details("All of them", f"<pre>{escape(json.dumps(recipe, indent=1, ensure_ascii=False))}</pre>")
    return whole(
        f"Polyclinic: {name}",
        f"<p>{intro}</p>{notice()}{facts(cards)}{sections}<section><h2>Settings</h2>{settings}</section>",
    )


def notice() -> str:
    """Return the warning, in English and, folded, in every language of the starter corpus."""
    rows = "".join(
        f"<p>{native(language(code), entry['notice'])}</p>" for code, entry in starter.entries().items() if code != "en"
    )
    english = (
        "A research model. Nothing it says is medical advice. Starter texts are machine-written demonstration text."
    )
    return f'<div class="notice"><p><strong>{english}</strong></p>{details("In other languages", rows)}</div>'
