"""Single questions as they were put and answered: a few right, wrong and unreadable ones of each exam."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from polyclinic.evaluate.answered import read_items
from polyclinic.evaluate.items import Item
from polyclinic.languages import language
from polyclinic.markup import Fragment, details, native

SHOWN = 2  # of each kind, in each exam and language of a sheet
KINDS = ("right", "wrong", "unparsed")
LONGEST = 6000  # characters of a prompt that are shown
LEAD = (
    "The prompt as every engine gets it, what the model answered, and what was read of that. A few of each kind; "
    "all items are in items-*.jsonl, all prompts in the folders of the protocols."
)


def browser(result: Mapping[str, Any], folder: Path) -> Fragment:
    """Return examples of every sheet, folded."""
    html = ""
    for sheet in result["sheets"]:
        found = read_items(folder / f"items-{sheet['name']}.jsonl")
        prompts = folder / sheet["protocol"]["name"]
        inside = "".join(details(task, "".join(shown)) for task, shown in _tasks(found, prompts))
        html += details(sheet["name"], inside)
    return Fragment("Single questions", LEAD, html)


def _tasks(found: Sequence[Item], folder: Path) -> Iterator[tuple[str, list[str]]]:
    by_task: dict[str, list[Item]] = {}
    for item in found:
        by_task.setdefault(item.task, []).append(item)
    for task, items in by_task.items():
        chosen = [item for kind in KINDS for item in [i for i in items if _kind(i) == kind][:SHOWN]]
        documents = _documents(folder / "tasks" / f"{task}.jsonl", {item.id for item in chosen})
        yield task, [_shown(item, documents[item.id]) for item in chosen]


def _documents(path: Path, wanted: set[str]) -> dict[str, Any]:
    with path.open(encoding="utf-8") as file:
        return {one["id"]: one for one in map(json.loads, file) if one["id"] in wanted}


def _kind(item: Item) -> str:
    return "unparsed" if item.picked is None else "right" if item.right else "wrong"


def _shown(item: Item, document: Mapping[str, Any]) -> str:
    entry = language(item.language)
    prompt = document["prompt"]
    cut = prompt if len(prompt) <= LONGEST else f"… {prompt[-LONGEST:]}"
    text = f'<pre dir="{entry.direction}">{native(entry, cut)}</pre>'
    answer = f"<p>Answered: {native(entry, item.raw)}</p>" if item.raw else _scores(item, document["choices"])
    right, picked = (_letters(places) for places in (item.gold, item.picked))
    return details(f"{_kind(item)}: {item.id}", f"{text}{answer}<p>Right: {right}. Read as: {picked}.</p>")


def _scores(item: Item, choices: Sequence[str]) -> str:
    rows = sorted(zip(item.scores, choices, strict=False), reverse=True)[:8]
    entry = language(item.language)
    listed = "".join(f"<li>{score:.3f} {native(entry, choice.strip())}</li>" for score, choice in rows)
    return f"<p>Nats of the choices, likeliest first:</p><ul>{listed}</ul>"


def _letters(places: Sequence[int] | None) -> str:
    if places is None:
        return "nothing that could be read"
    return escape(", ".join(chr(ord("A") + place) for place in places))
