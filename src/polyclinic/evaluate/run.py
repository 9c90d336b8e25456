"""The evaluate step: each model asked under each routing and protocol, and what its answers are worth.

Answers are kept outside the step's folder, so a run that was cut, or asks for more, scores nothing twice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import DataError
from polyclinic.evaluate.exams import ask
from polyclinic.evaluate.items import Item
from polyclinic.evaluate.loss import held_out_loss
from polyclinic.evaluate.parts import Part, limited
from polyclinic.evaluate.prompting import asks_for_sets
from polyclinic.evaluate.protocol import PROTOCOLS, Protocol
from polyclinic.evaluate.report.markdown import card
from polyclinic.evaluate.sheets import Documents, Unasked, documents, items, write_items
from polyclinic.evaluate.statistics.calibration import calibration
from polyclinic.evaluate.statistics.comparison import compare
from polyclinic.evaluate.statistics.leak_flags import flagged
from polyclinic.evaluate.statistics.paper_average import paper_average
from polyclinic.evaluate.statistics.tables import as_csv, scores
from polyclinic.evaluate.tasks import write_tasks
from polyclinic.evaluate.wording import reworded
from polyclinic.families import fifty
from polyclinic.progress import Progress
from polyclinic.recipe import EvaluateSection
from polyclinic.records import Document, held_out
from polyclinic.runs import write_bytes, write_json

RESULT = "scores.json"
RESULTS = "results-{}.json"  # as lm-eval writes them


class Asked(NamedTuple):
    """A model as it is asked: its name, its routing (empty where there is but one), and what opens it."""

    model: str
    routing: str
    opened: Callable[[Progress], AbstractContextManager[Any]]  # an LM of lm-eval


class Prepared(NamedTuple):
    """A protocol with its documents, written as tasks of lm-eval."""

    protocol: Protocol
    documents: Documents
    unasked: Unasked


def run(
    section: EvaluateSection,
    models: Sequence[Asked],
    parts: Sequence[Part],
    folder: Path,
    progress: Progress,
    family_of: Callable[[str], str] | None = None,
    leaks: Sequence[dict[str, Any]] | None = None,
    loss: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score every model on the same questions; writes `scores.json`, a CSV, Markdown, and the items of each sheet.

    `family_of` names the family of a language; `leaks` are the entries of a corpus' report; `loss` is each
    model's on held-out text, to stand beside the scores.
    """
    asked = [part for part in limited(parts, section.max_questions) if part.questions]
    prepared = {name: _prepared(protocol, asked, folder / name) for name, protocol in protocols(section).items()}
    sheets: list[dict[str, Any]] = []
    wording: dict[str, Any] = {}
    answered: dict[str, list[Item]] = {}
    for one in models if asked else ():
        with one.opened(progress) as model:
            for name, given in prepared.items():
                sheet = _name(one, name)
                progress.say(f"{sheet}: {sum(map(len, given.documents.values())):,} questions")
                answers = ask(model, folder / name, list(given.documents))
                write_json(folder / RESULTS.format(sheet), answers.results)
                answered[sheet] = items({part.task: part for part in asked}, given.protocol, answers.samples)
                write_items(answered[sheet], folder / f"items-{sheet}.jsonl")
                about: dict[str, Any] = {"name": sheet, "model": one.model, "routing": one.routing}
                if given.protocol.majority_letter:
                    about["paper"] = paper_average(answered[sheet])
                about |= {"protocol": {"name": name, **given.protocol.facts()}, "unasked": given.unasked}
                sheets.append(about | worth(answered[sheet], asked, given.protocol, family_of, leaks))
            if section.sensitivity:
                letters = replace(next(iter(prepared.values())).protocol, scoring="letter", layout="plain")
                wording[_name(one, "")] = reworded(model, asked, section.sensitivity, letters, folder)
    names = list(dict.fromkeys(one.model for one in models))
    result: dict[str, Any] = {"models": names, "sheets": sheets, "sensitivity": wording}
    result |= {"parts": [_facts(part) for part in asked], "missing": missing(asked), "loss": dict(loss or {})}
    result["comparison"] = compared(sheets, answered, names)
    rows = [{"sheet": sheet["name"], **row} for sheet in sheets for row in sheet["rows"]]
    write_bytes(folder / "scores.csv", as_csv(rows).encode())
    write_bytes(folder / "scores.md", card(result).encode())
    write_json(folder / RESULT, result)
    return {"questions": sum(len(part.questions) for part in asked), "sheets": len(sheets)}


def compared(
    sheets: Sequence[Mapping[str, Any]], answered: Mapping[str, Sequence[Item]], models: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what the last model does better and worse than the first, for each protocol and routing."""
    out = []
    for a in (sheet for sheet in sheets if sheet["model"] == models[-1] != models[0]):
        others = (s for s in sheets if s["model"] == models[0] and s["protocol"] == a["protocol"])
        b = next(others, None)
        if b is not None and answered[a["name"]]:
            out.append({"a": a["name"], "b": b["name"], **compare(answered[a["name"]], answered[b["name"]])})
    return out


def losses(
    section: EvaluateSection, checkpoints: Mapping[str, Path], texts: Iterable[Document]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return each model's held-out loss per language."""
    found = held_out(texts, section.max_documents_per_language)
    return {name: held_out_loss(path, found) for name, path in checkpoints.items()}


def protocols(section: EvaluateSection) -> dict[str, Protocol]:
    """Return the protocols of a section by name, with what it says of all of them."""
    given: dict[str, Any] = {"shots": section.shots, "instruction": section.instruction, "seed": section.seed}
    given |= {"new_tokens": section.new_tokens}
    changes = {key: value for key, value in given.items() if value is not None}
    return {name: replace(PROTOCOLS[name], **changes) for name in section.protocols}


def _prepared(protocol: Protocol, parts: Sequence[Part], folder: Path) -> Prepared:
    short = [part for part in parts if len(part.pool) < protocol.shots and not protocol.shots_from_test]
    if short:
        names = ", ".join(f"{part.exam} {part.language}" for part in short)
        raise DataError(names, f"cannot give {protocol.shots} examples beside what is asked", "set fewer shots")
    found, unasked = documents(parts, protocol)
    folder.mkdir(exist_ok=True)
    write_tasks(found, protocol, folder)
    return Prepared(protocol, found, unasked)


def _name(one: Asked, protocol: str) -> str:
    return "-".join(word for word in (one.model, one.routing, protocol) if word)


def worth(
    found: Sequence[Item],
    parts: Sequence[Part],
    protocol: Protocol,
    family_of: Callable[[str], str] | None = None,
    leaks: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what the answers of one sheet are worth: rows of all levels, calibration, leaks."""
    families = {part.language: family_of(part.language) for part in parts} if family_of else None
    several = {part.exam for part in parts if asks_for_sets(part.several, protocol)}
    derived = {part.exam for part in parts if part.derived}
    return {
        "rows": scores(found, families, derived, several=several),
        "calibration": calibration(found),
        "leaks": flagged(found, leaks) if leaks is not None else None,
    }


def missing(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Return which of the fifty languages are asked nothing, or derived questions only."""
    real = {part.language for part in parts if part.questions and not part.derived}
    made = {part.language for part in parts if part.questions and part.derived}
    return {
        "nothing": [code for code in fifty() if code not in real | made],
        "derived only": [code for code in fifty() if code in made - real],
    }


def _facts(part: Part) -> dict[str, Any]:
    return {
        "task": part.task, "exam": part.exam, "language": part.language, "n": len(part.questions),
        "pool": len(part.pool), "several": part.several, "derived": part.derived, "licence": part.licence,
        "left_out": part.left_out,
    }  # fmt: skip
