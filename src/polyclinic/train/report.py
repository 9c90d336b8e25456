"""Loss curves as a section of the report: over all, and per family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.markup import Fragment, details, figure, number, table

LEAD = "Loss is how surprised the model is by the next token, in nats; lower is better. Each family has its own line."
SMOOTH = 0.6  # weight of the past in the running mean that is drawn


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def by_family(
    log: list[dict[str, Any]], expert_of: Mapping[str, int], names: list[str]
) -> dict[str, list[tuple[float, float]]]:
    """Return a smoothed loss curve per family, languages weighted by their tokens."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        sums: dict[int, list[float]] = {}
        for code, value in line["languages"].items():
            total = sums.setdefault(expert_of[code], [0.0, 0.0])
            total[0] += value["loss"] * value["tokens"]
            total[1] += value["tokens"]
        for expert, (loss, tokens) in sorted(sums.items()):
            points = curves.setdefault(names[expert], [])
            mean = loss / tokens
            points.append((line["step"], SMOOTH * points[-1][1] + (1 - SMOOTH) * mean if points else mean))
    return curves


def fragment(folder: Path, families: Mapping[str, Any]) -> Fragment:
    """Return the section for a training step."""
    log = read_log(folder)
    names = [f["name"] for f in families["families"]]
    curve = figures.lines({"all": [(line["step"], line["loss"]) for line in log]}, "step", "loss")
    family = figures.lines(by_family(log, families["expert_of"], names), "step", "loss")
    last: dict[str, Any] = {}
    for line in log:
        last |= line["languages"]
    rows = [[code, number(v["loss"]), f"{v['tokens']:,}"] for code, v in sorted(last.items())]
    speed = sorted(line["tokens_per_second"] for line in log)[len(log) // 2]
    html = figure(curve, f"Training loss. Median speed {speed:,.0f} tokens/s.")
    html += figure(family, "The same per family (running mean).")
    return Fragment(
        "Training", LEAD, html + details("Last loss per language", table(["language", "loss", "tokens"], rows))
    )
