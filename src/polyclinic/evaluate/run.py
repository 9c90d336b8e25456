"""The evaluate step: exams and held-out loss of the dense base and the trained mixture."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from polyclinic.evaluate.exams import Answer, ask
from polyclinic.evaluate.loss import held_out_loss
from polyclinic.evaluate.prompting import document
from polyclinic.evaluate.protocol import PROTOCOLS, Protocol
from polyclinic.evaluate.statistics import best_constant, chance, wilson
from polyclinic.evaluate.tasks import single_answer, task_name, write_tasks
from polyclinic.progress import Progress
from polyclinic.recipe import EvaluateSection
from polyclinic.records import Document, Question, held_out
from polyclinic.runs import write_json

RESULT = "scores.json"
PROTOCOL = PROTOCOLS["option"]


def run(
    section: EvaluateSection,
    models: dict[str, Path],
    documents: Iterable[Document],
    questions: Sequence[Question],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Score every model (name -> checkpoint) on the same items and texts; writes `scores.json`."""
    asked = limit(questions, section.max_questions)
    tasks = write_tasks(documents_of(asked, PROTOCOL), PROTOCOL, folder)
    texts = held_out(documents, section.max_documents_per_language)
    result: dict[str, Any] = {"models": list(models), "several_answers": sum(not single_answer(q) for q in asked)}
    result |= {"exams": {}, "loss": {}}
    for done, (name, checkpoint) in enumerate(models.items(), start=1):
        progress.advance(done - 1, len(models), f"{name}: {len(asked):,} questions, {len(texts):,} texts")
        answers = ask(checkpoint, folder, tasks, section.batch_size) if tasks else []
        _keep(answers, folder / f"items-{name}.jsonl")
        result["exams"][name] = table(asked, answers)
        result["loss"][name] = held_out_loss(checkpoint, texts)
    progress.advance(len(models), len(models))
    write_json(folder / RESULT, result)
    return {"questions": len(asked), "texts": len(texts)}


def documents_of(questions: Iterable[Question], protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """Return each task's documents: the questions with one right answer, without examples."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for question in filter(single_answer, questions):
        made = document(question, (), protocol)
        if made is not None:
            by_task.setdefault(task_name(question), []).append(made)
    return by_task


def limit(questions: Iterable[Question], cap: int | None) -> list[Question]:
    """Take the first questions of each task, at most `cap`."""
    taken: dict[str, int] = {}
    out = []
    for question in questions:
        name = task_name(question)
        taken[name] = taken.get(name, 0) + 1
        if cap is None or taken[name] <= cap:
            out.append(question)
    return out


def table(questions: Sequence[Question], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return one row per exam and language: n, accuracy, interval, chance and constant-answer lines."""
    by_id = {(task_name(q), q.id): q for q in questions}
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        question = by_id[answer.task, answer.id]
        groups.setdefault((question.source, question.language), []).append(answer)
    return [_row(*key, groups[key]) for key in sorted(groups)]


def _row(source: str, code: str, answers: Sequence[Answer]) -> dict[str, Any]:
    correct = sum(a.picked == a.gold for a in answers)
    interval = wilson(correct, len(answers))
    return {
        "exam": source,
        "language": code,
        "n": len(answers),
        "accuracy": correct / len(answers),
        "low": interval.low,
        "high": interval.high,
        "chance": chance([len(a.log_likelihoods) for a in answers]),
        "constant": best_constant([a.gold for a in answers]),
    }


def _keep(answers: Sequence[Answer], path: Path) -> None:
    """Write one line per item: ids and numbers, no text."""
    path.write_text("".join(json.dumps(a._asdict()) + "\n" for a in answers), "utf-8")
