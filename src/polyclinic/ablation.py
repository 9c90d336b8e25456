"""What each part of the text is worth: a small model tuned on it, or without it, and held-out loss.

Tuned on one language alone, a model should do better in that language; tuned on everything but one
category, worse where that category mattered. Every tuning starts from the same base and takes the
same number of steps, and changes are of the same documents, with intervals.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic import ablation_report
from polyclinic.corpus.card.amounts import CARD
from polyclinic.corpus.card.card_page import as_page
from polyclinic.corpus.pack import pack as packing
from polyclinic.errors import DataError
from polyclinic.families import Preset
from polyclinic.languages import language
from polyclinic.progress import Progress
from polyclinic.recipe import AblateSection, Recipe
from polyclinic.records import Document, held_out
from polyclinic.runs import SCRATCH, digest, read_json, write_bytes, write_json

RESULT = "ablation.json"
LOSSES = "losses.json"
BYTES_PER_TOKEN = 16  # more than any vocabulary has on running text
BASE, ALL, ONLY, WITHOUT = "base", "all", "only", "without"


class Part(NamedTuple):
    """What one model is tuned on: all, one language only, or all without one category; `base` is not tuned."""

    kind: str
    of: str = ""

    def keeps(self, document: Document) -> bool:
        """Say whether a training document is in the part."""
        if self.kind == ONLY:
            return document.language == self.of
        return self.kind == ALL or document.category != self.of

    def step(self) -> str:
        """Return the name of its step, one for each part whatever its category is called."""
        plain = re.sub("[^a-z0-9]+", "-", self.of.lower())
        marked = plain if plain == self.of else f"{plain}-{digest(self.of)[:6]}"
        return f"ablate-{self.kind}" + (f"-{marked}" if self.of else "")

    def told(self) -> str:
        """Return the part in words."""
        return {BASE: "the base", ALL: "all text", ONLY: f"{self.of} only"}.get(self.kind, f"without {self.of}")


class Places(NamedTuple):
    """The finished steps a tuning needs."""

    dense: Path
    tokenizer: Path


def parts(section: AblateSection, documents: Iterable[Document]) -> list[Part]:
    """List what is tuned; raises DataError for a language or category that no training text has."""
    languages, categories = set(), set()
    for document in documents:
        languages.add(document.language)
        categories.add(document.category)
    asked = None if section.languages is None else [language(code).code for code in section.languages]
    wanted = _asked("languages", asked, languages)
    left_out = _asked("categories", section.categories, categories - {""})
    if len(categories) < 2:  # noqa: PLR2004 - without the only category there is no text
        left_out = []
    return [Part(BASE), Part(ALL), *(Part(ONLY, c) for c in wanted), *(Part(WITHOUT, c) for c in left_out)]


def _asked(what: str, names: Sequence[str] | None, there: set[str]) -> list[str]:
    missing = [name for name in names or () if name not in there]
    if missing:
        found = ", ".join(sorted(there)) or "none"
        raise DataError(f"ablate.{what}", f"no training text of '{missing[0]}'", f"there is: {found}")
    return sorted(there) if names is None else list(dict.fromkeys(names))


def measure(
    recipe: Recipe,
    part: Part,
    places: Places,
    documents: Sequence[Document],
    expert_of: Callable[[str], int],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Tune a model on a part and score held-out text; writes `losses.json`, a row for each document."""
    from polyclinic.evaluate.loss import document_losses

    assert recipe.ablate is not None  # noqa: S101 - only a recipe with the section comes here
    trained = [d for d in documents if d.split == "train" and part.keeps(d)]
    model = places.dense if part.kind == BASE else _tune(recipe, trained, places, expert_of, folder / SCRATCH, progress)
    asked = held_out(documents, recipe.ablate.max_documents_per_language)
    scored = document_losses(model, asked)
    rows = [
        {"id": d.id, "language": d.language, "source": d.source, "group": d.group, **s._asdict()}
        for d, s in zip(asked, scored, strict=True)
    ]
    write_json(folder / LOSSES, rows)
    return {"part": part.told(), "training_documents": 0 if part.kind == BASE else len(trained)}


def _tune(
    recipe: Recipe,
    documents: Sequence[Document],
    places: Places,
    expert_of: Callable[[str], int],
    folder: Path,
    progress: Progress,
) -> Path:
    """Pack a part of the text and train the base on it; returns the checkpoint."""
    from polyclinic.train.run import train_dense

    packs, tuned = folder / "packs", folder / "tuned"
    for place in (packs, tuned):
        place.mkdir(exist_ok=True)
    tokenizer, specials = packing.load_tokenizer(places.tokenizer)
    documents = enough(documents, recipe)
    options = packing.Packing(recipe.corpus.pack_tokens, recipe.train.loss_on, recipe.seed)
    packing.pack(documents, tokenizer, specials, expert_of, packs, options, progress)
    train_dense(recipe.train, places.dense, packs, tuned, recipe.seed, progress)
    return tuned


def enough(documents: Sequence[Document], recipe: Recipe) -> list[Document]:
    """Return documents in an order drawn by the seed, as many as the steps of a tuning can read.

    No token is longer than BYTES_PER_TOKEN on average, so that what is left out would not have been read.
    """
    out = list(documents)
    random.Random(recipe.seed).shuffle(out)  # noqa: S311 - an order to be repeated, not a secret
    if recipe.train.steps is None:
        return out
    batch = recipe.train.batch_packs * recipe.train.accumulate
    wanted = recipe.train.steps * batch * recipe.corpus.pack_tokens * BYTES_PER_TOKEN
    for number, document in enumerate(out):
        wanted -= len(document.text().encode())
        if wanted <= 0:
            return out[: number + 1]
    return out


def compare(recipe: Recipe, measured: Mapping[Part, Path], folder: Path) -> dict[str, Any]:
    """Compare the losses of all parts, language by language; writes `ablation.json`.

    A language's own text is held against the base, a category against all text. Changes are in nats
    a token: below 0 is better for `only`, above 0 says that the category helped.
    """
    tables = {part: read_json(place / LOSSES) for part, place in measured.items()}
    only = {part.of: tables[part] for part in tables if part.kind == ONLY}
    without = {part.of: tables[part] for part in tables if part.kind == WITHOUT}
    base, whole = tables[Part(BASE)], tables[Part(ALL)]
    result = {
        "steps": recipe.train.steps,
        "all": _changes(recipe, base, whole),
        "only": {of: _changes(recipe, base, table) for of, table in only.items()},
        "without": {of: _changes(recipe, whole, table) for of, table in without.items()},
    }
    write_json(folder / RESULT, result)
    return {"languages": len(only), "categories": len(without)}


def enter(folder: Path, corpus: Path, packed: Path, preset: Preset) -> None:
    """Write the data card of a corpus with its tokens and with what was measured, as JSON and as a page."""
    card = {**read_json(corpus / CARD), "ablation": read_json(folder / RESULT)}
    packs = read_json(packed / packing.META)
    found = ablation_report.fragment(folder)
    more = [(found.title, f'<p class="lead">{escape(found.lead)}</p>{found.html}')]
    write_json(folder / CARD, {**card, "tokens": packs["tokens"]})
    write_bytes(folder / "card.html", as_page(card, preset, packs, more).encode())


def _changes(
    recipe: Recipe, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return the change of loss of each language."""
    from polyclinic.intervals import paired_change

    assert recipe.ablate is not None  # noqa: S101
    rows: dict[str, list[tuple[float, float, float, str]]] = {}
    for old, new in zip(before, after, strict=True):
        if old["tokens"]:
            rows.setdefault(old["language"], []).append((old["nats"], new["nats"], old["tokens"], old["group"]))
    return {
        code: paired_change(*zip(*found, strict=True), recipe.ablate.resamples, recipe.seed)._asdict()  # type: ignore[call-arg,arg-type]
        for code, found in sorted(rows.items())
    }
