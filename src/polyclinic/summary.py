"""The end of a run: the fragments of all stages in one page, and the same in five lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyclinic import ablation_report
from polyclinic.analyse.report.fragments import fragments as routes
from polyclinic.baselines import SAYS
from polyclinic.corpus.card import report as corpus
from polyclinic.evaluate.report.fragments import fragments as evaluated
from polyclinic.evaluate.report.rows import macro
from polyclinic.families import load_preset
from polyclinic.markup import Fragment
from polyclinic.page import page
from polyclinic.recipe import Recipe
from polyclinic.runs import read_json
from polyclinic.train import report as train
from polyclinic.train import stage_report
from polyclinic.upcycle import report as upcycle


def report(recipe: Recipe, run: Path, facts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the page and the summary lines of a finished run."""
    if recipe.ablate is not None:
        return _joined(
            recipe,
            ablation_report.headline(run / "ablate"),
            [
                ablation_report.fragment(run / "ablate"),
                corpus.fragment(run / "corpus"),
            ],
        )
    scores = read_json(run / "evaluate" / "scores.json")
    dense = recipe.baseline == "dense"
    routing = _families(recipe, run) if dense else read_json(run / "analyse" / "routing.json")
    fragments = [
        *([] if dense else routes(run / "analyse")),
        *evaluated(run / "evaluate"),
        *([stage_report.fragment(run, routing)] if recipe.specialise else []),
        train.fragment(run / "train", routing),
        *([] if dense else [upcycle.fragment(facts["upcycle"])]),
        corpus.fragment(run / "corpus", read_json(run / "packed" / "packs.json"), load_preset(recipe.upcycle.families)),
    ]
    pairs = headline(scores, routing)
    if recipe.baseline != "none":
        pairs.insert(0, ("baseline", f"{recipe.baseline}: {SAYS[recipe.baseline]}"))
    return _joined(recipe, pairs, fragments)


def _joined(recipe: Recipe, pairs: Sequence[tuple[str, str]], fragments: Sequence[Fragment]) -> tuple[str, list[str]]:
    html = page(recipe.name, pairs, fragments, recipe.model_dump())
    width = max(len(name) for name, _ in pairs)
    return html, [f"{name:<{width}}   {value}" for name, value in pairs]


def _families(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Return what the report of a dense model needs of families: names for its curves."""
    names = [{"name": family.name} for family in load_preset(recipe.upcycle.families).families]
    return {"families": names, "expert_of": read_json(run / "packed" / "packs.json")["expert_of"]}


def headline(scores: dict[str, Any], routing: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures that stand above everything else: four, of a dense model those that it has."""
    name = scores["models"][-1]
    before, after = (scores["loss"][model] for model in scores["models"])
    pairs = [
        ("unseen text, bits per byte", f"{_mean(before):.2f} base, {_mean(after):.2f} {name}"),
        ("exams, mean over languages", _exams(scores)),
    ]
    if name == "dense":
        return pairs
    own = list(routing["own_expert"].values())
    counted = f"{len(routing['tokens_of'])} languages, {len(routing['families'])} family experts"
    unforced = f"{100 * sum(own) / len(own):.0f} % of tokens"
    return [("languages and experts", counted), *pairs, ("own expert picked unforced", unforced)]


def _mean(table: dict[str, dict[str, float]]) -> float:
    return sum(row["bits_per_byte"] for row in table.values()) / len(table)


def _exams(scores: dict[str, Any]) -> str:
    means = {sheet["model"]: macro(sheet) for sheet in reversed(scores["sheets"])}  # of each model's first sheet
    base, after = (means.get(name) for name in scores["models"])
    if base is None or after is None:
        return "none asked"
    figures = [100 * value for value in (base["accuracy"], after["accuracy"], after["chance"])]
    return "{:.1f} % base, {:.1f} % {name}, {:.1f} % chance".format(*figures, name=scores["models"][-1])
