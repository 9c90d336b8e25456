"""Questions put in other ways that mean the same: layouts, instructions in other words, slips of the hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyclinic.evaluate.exams import ask
from polyclinic.evaluate.parts import Part
from polyclinic.evaluate.prompting import draw
from polyclinic.evaluate.protocol import Protocol
from polyclinic.evaluate.statistics.sensitivity import Asked, sensitivity
from polyclinic.evaluate.tasks import write_tasks
from polyclinic.evaluate.variants import KINDS, Kind, variants
from polyclinic.records import Question

FOLDER = "wording"
WAYS = 5  # of each kind, the plain one among them


def reworded(model: Any, parts: Sequence[Part], most: int, protocol: Protocol, folder: Path) -> list[dict[str, Any]]:
    """Return a row per kind and language: how much answers hang on the wording, by the letters' log-likelihoods.

    Asks the first `most` questions of each language that have one right answer, exams before derived ones.
    """
    chosen = _chosen(parts, most)
    documents = {}
    for kind in KINDS:
        for code, questions in chosen.items():
            name = f"polyclinic_{kind}_{code}"
            documents[name] = [one for part, question in questions for one in _ways(kind, part, question, protocol)]
    (folder / FOLDER).mkdir(exist_ok=True)
    samples = ask(model, folder / FOLDER, write_tasks(documents, protocol, folder / FOLDER)).samples
    asked = []
    for kind in KINDS:
        for code, questions in chosen.items():
            found = {sample["doc"]["id"]: sample for sample in samples[f"polyclinic_{kind}_{code}"]}
            asked += [_asked(kind, question, found) for _, question in questions]
    return sensitivity(asked, protocol.seed)


def _chosen(parts: Sequence[Part], most: int) -> dict[str, list[tuple[Part, Question]]]:
    out: dict[str, list[tuple[Part, Question]]] = {}
    for part in sorted(parts, key=lambda part: part.derived):
        some = out.setdefault(part.language, [])
        some += [(part, q) for q in part.questions if len(q.answers) == 1][: most - len(some)]
    return {code: some for code, some in out.items() if some}


def _ways(kind: Kind, part: Part, question: Question, protocol: Protocol) -> Iterator[dict[str, Any]]:
    shots = draw(part.pool, question, protocol)
    for variant in variants(question, kind, WAYS, protocol.seed):
        document = variant.document(shots, protocol)
        if document is not None:
            yield {**document, "id": f"{question.source} {question.id} {variant.number}"}


def _asked(kind: Kind, question: Question, found: dict[str, dict[str, Any]]) -> Asked:
    own = f"{question.source} {question.id} "
    rows = [sample for name, sample in found.items() if name.startswith(own) and name[len(own) :].isdigit()]
    log_p = np.array([[float(response[0][0]) for response in sample["resps"]] for sample in rows])
    return Asked(question.id, question.language, question.group, question.answers[0], log_p, kind)
