"""One model asked under one protocol and one routing: documents out, items back."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyclinic.evaluate.items import Item
from polyclinic.evaluate.parse import read
from polyclinic.evaluate.parts import Part
from polyclinic.evaluate.prompting import asked, asks_for_sets, subsets
from polyclinic.evaluate.protocol import GENERATED, Protocol
from polyclinic.records import Question
from polyclinic.runs import write_bytes

SEVERAL = "several right answers"
LONG = "over the protocol's characters"

Documents = dict[str, list[dict[str, Any]]]
Unasked = dict[str, dict[str, int]]


def documents(parts: Sequence[Part], protocol: Protocol) -> tuple[Documents, Unasked]:
    """Return the documents of each task, and how many questions cannot be asked so, by task and reason."""
    out: Documents = {}
    unasked: Unasked = {}
    for part in parts:
        counts: Counter[str] = Counter()
        found = [one for question in part.questions if (one := _document(part, question, protocol, counts))]
        if found:
            out[part.task] = found
        if counts:
            unasked[part.task] = dict(sorted(counts.items()))
    return out, unasked


def _document(part: Part, question: Question, protocol: Protocol, counts: Counter[str]) -> dict[str, Any] | None:
    if protocol.scoring == "option" and len(question.answers) > 1:
        counts[SEVERAL] += 1
        return None
    found = asked(question, part.questions, part.pool, protocol, part.several)
    if found is None:
        counts[LONG] += 1
    return found


def items(parts: Mapping[str, Part], protocol: Protocol, samples: Mapping[str, Sequence[Any]]) -> list[Item]:
    """Return the items of lm-eval's samples, by task."""
    by_id = {(name, q.id): q for name, part in parts.items() for q in part.questions}
    return [
        item(parts[name], by_id[name, sample["doc"]["id"]], protocol, sample)
        for name, found in samples.items()
        for sample in found
    ]


def item(part: Part, question: Question, protocol: Protocol, sample: Mapping[str, Any]) -> Item:
    """Return one sample as an item."""
    gold = question.answers[:1] if protocol.first_letter else question.answers
    facts = (part.task, part.exam, part.language, question.id, question.group, len(question.options), gold)
    if protocol.scoring in GENERATED:
        raw = str(sample["resps"][0][0])
        return Item(*facts, read(raw, question.language, question.options, part.several, protocol), raw=raw)
    scores = [float(response[0][0]) for response in sample["resps"]]
    if protocol.scoring == "option":
        sizes = [len(option.encode()) for option in question.options]
        scores = [score / size for score, size in zip(scores, sizes, strict=True)]
    best = max(range(len(scores)), key=scores.__getitem__)
    picked = subsets(len(question.options))[best] if asks_for_sets(part.several, protocol) else (best,)
    return Item(*facts, picked, tuple(scores))


def write_items(found: Sequence[Item], path: Path) -> None:
    """Write one line per item; of the text only what the model wrote itself."""
    write_bytes(path, "".join(json.dumps(i._asdict(), ensure_ascii=False) + "\n" for i in found).encode())
