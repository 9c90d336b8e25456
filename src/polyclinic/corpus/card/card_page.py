"""The data card as one HTML file, and the parts of it that a run's report shows."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polyclinic.corpus.card.card_figures import bars, ring
from polyclinic.corpus.starter import NOTICE, SOURCE
from polyclinic.families import Preset
from polyclinic.languages import language
from polyclinic.markup import facts, figure, native, number, table, whole

NOT_SAID = "not said"


def as_page(
    card: Mapping[str, Any],
    preset: Preset,
    packs: Mapping[str, Any] | None = None,
    more: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the card as a page; `packs` (what packing noted) brings tokens in place of characters.

    `more` are further sections, title and HTML.
    """
    rows = card["languages"]
    documents = sum(sum(row.get(split, 0) for split in splits_of(card)) for row in rows.values())
    pairs = [
        ("languages with text", str(sum(1 for row in rows.values() if row.get("characters")))),
        ("documents", f"{documents:,}"),
        ("characters", f"{sum(row.get('characters', 0) for row in rows.values()):,}"),
        ("exam questions", f"{sum(row.get('questions', 0) for row in rows.values()):,}"),
        ("sources", str(len(card["sources"]))),
    ]
    starter = any(s["source"] == SOURCE for s in card["sources"])
    notice = f'<div class="notice"><p><strong>{SOURCE}: {NOTICE}</strong></p></div>' if starter else ""
    sections = (
        ("How much of what", figures(card, preset, packs)),
        ("Languages", languages_table(card, preset, packs)),
        ("Sources and licences", sources_table(card)),
        ("Categories", categories_table(card)),
        ("What each step did", steps_table(card)),
        ("Quality", quality_table(card)),
        *more,
        ("Known gaps", "<ul>" + "".join(f"<li>{escape(gap)}</li>" for gap in card.get("gaps", ())) + "</ul>"),
    )
    html = "".join(f"<section><h2>{name}</h2>{part}</section>" for name, part in sections if part)
    return whole("Data card", f"{notice}{facts(pairs)}{html}")


def splits_of(card: Mapping[str, Any]) -> list[str]:
    """Return the splits that a card counts; validation only where some text was set aside for it."""
    aside = any("validation" in row for row in card["languages"].values())
    return ["train", *(["validation"] if aside else []), "held_out"]


def amounts(card: Mapping[str, Any], packs: Mapping[str, Any] | None) -> tuple[str, dict[str, int], dict[str, int]]:
    """Return the unit, and how much text there is by language and by category."""
    if packs is None:
        kinds = {row["category"] or NOT_SAID: row.get("characters", 0) for row in card["categories"]}
        return "characters", {code: row.get("characters", 0) for code, row in card["languages"].items()}, kinds
    codes: dict[str, int] = {}
    kinds = {}
    for row in packs["groups"]:
        codes[row["language"]] = codes.get(row["language"], 0) + row["packed"]
        name = row["category"] or NOT_SAID
        kinds[name] = kinds.get(name, 0) + row["packed"]
    return "tokens", codes, kinds


def figures(card: Mapping[str, Any], preset: Preset, packs: Mapping[str, Any] | None) -> str:
    """Return the ring of categories and the bars of languages, coloured by family."""
    unit, by_language, by_category = amounts(card, packs)
    if not any(by_language.values()):
        return ""
    of_family: dict[str, list[tuple[str, int]]] = {}
    for code, n in by_language.items():
        of_family.setdefault(preset.family_of(code).name, []).append((f"{language(code).name} ({code})", n))
    ranked = sorted(of_family.items(), key=lambda pair: (-sum(n for _, n in pair[1]), pair[0]))
    groups = [(name, sorted(rows, key=lambda row: (-row[1], row[0]))) for name, rows in ranked]
    what = "training text as packed" if packs else "all text"
    shares = ""
    if len(by_category) > 1:  # one category is no share of anything
        shares = figure(ring(by_category, f"Share of each category in {unit}"), f"Categories: {what}, in {unit}.")
    return shares + figure(
        bars(groups, unit, f"{unit} of each language"), f"Languages by family of preset {preset.name}: {what}."
    )


def languages_table(card: Mapping[str, Any], preset: Preset, packs: Mapping[str, Any] | None) -> str:
    """Return a row for each language with its own name; the figures of the bars among them."""
    splits = splits_of(card)
    packed = packs["tokens"] if packs else {}
    heads = ["language", "own name", "code", "family", *(s.replace("_", " ") for s in splits)]
    rows = []
    for code, row in card["languages"].items():
        counts = [f"{row.get(key, 0):,}" for key in (*splits, "characters")]
        tokens = [f"{packed.get(code, 0):,}"] if packs else []
        known = language(code)
        cells = [escape(known.name), native(known), code, escape(preset.family_of(code).name)]
        rows.append([*cells, *counts, *tokens, f"{row.get('questions', 0):,}"])
    return table([*heads, "characters", *(["tokens"] if packs else []), "questions"], rows, text_columns=4)


def sources_table(card: Mapping[str, Any]) -> str:
    """Return a row for each source and licence, with the address that attribution names."""
    splits = splits_of(card)
    heads = ["source", "licence", "address", *(s.replace("_", " ") for s in splits), "characters", "questions"]
    rows = (
        [*(escape(s.get(k, "")) for k in ("source", "licence", "url")),
         *(f"{s.get(k, 0):,}" for k in (*splits, "characters", "questions"))]
        for s in card["sources"]
    )  # fmt: skip
    return table(heads, rows, text_columns=3)


def categories_table(card: Mapping[str, Any]) -> str:
    """Return documents of each language by category: the figures of the ring, and where a kind is missing."""
    names = [row["category"] for row in card["categories"]]
    if not any(names):
        return ""
    rows = [
        [escape(language(code).name), *(f"{kinds.get(name, 0):,}" for name in names)]
        for code, kinds in card["kinds"].items()
    ]
    sums = [["all", *(f"{sum(k.get(name, 0) for k in card['kinds'].values()):,}" for name in names)]]
    return table(["language", *(escape(name) or NOT_SAID for name in names)], sums + rows)


def steps_table(card: Mapping[str, Any]) -> str:
    """Return rows in and out of each step and its reasons; or the reasons alone where steps are not known."""
    if "steps" not in card:
        return table(["what happened", "rows"], [[escape(k), f"{v:,}"] for k, v in card["counts"].items()])
    rows: list[Sequence[str]] = []
    for step in card["steps"]:
        rows.append([escape(step["step"]), "", f"{step['rows_in']:,}", f"{step['rows_out']:,}"])
        rows += [["", escape(reason), f"{n:,}", ""] for reason, n in step["counts"].items()]
    return table(["step", "what happened", "rows", "rows out"], rows, text_columns=2)


def quality_table(card: Mapping[str, Any]) -> str:
    """Return the median of each measure in each language."""
    quality = card.get("quality") or {}
    codes = sorted({code for medians in quality.values() for code in medians})
    rows = [[escape(language(code).name), *(number(m.get(code), 3) for m in quality.values())] for code in codes]
    heads = ["language", *(escape(name.replace("_", " ")) for name in quality)]
    return table(heads, rows, "Medians over documents that were kept") if rows else ""
