"""Loss curves as a section of the report: over all, and per family."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.markup import Fragment, details, figure, number, table

LEAD = "Loss is how surprised the model is by the next token, in nats; lower is better. Each family has its own line."
VALIDATED = " Validation is the plain mean over languages, on text set aside, routed as a user would get it."
MOST_LAYERS = 6  # whose loads are drawn
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
    curves = {"training": of(log, "loss"), "validation": of(log, "validation", "macro")}
    curve = figures.lines({name: points for name, points in curves.items() if points}, "step", "loss")
    family = figures.lines(by_family(log, families["expert_of"], names), "step", "loss")
    last: dict[str, Any] = {}
    for line in log:
        last |= line["languages"]
    rows = [[code, number(v["loss"]), f"{v['tokens']:,}"] for code, v in sorted(last.items())]
    machine = sorted((line["machine"] for line in log), key=lambda one: float(one["tokens_per_second"]))[len(log) // 2]
    caption = f"Training loss. Median speed {machine['tokens_per_second']:,.0f} tokens/s."
    html = figure(curve, caption + VALIDATED * bool(curves["validation"]))
    html += figure(family, "The same per family (running mean).")
    html += details("Step by step", "".join(figure(*one) for one in course(log, names)))
    return Fragment(
        "Training", LEAD, html + details("Last loss per language", table(["language", "loss", "tokens"], rows))
    )


def of(log: list[dict[str, Any]], key: str, layer: str = "") -> list[tuple[float, float]]:
    """Return a figure of the log, or of a layer in it, as points; lines that lack it are passed over."""
    found = [(line["step"], (line.get(key) or {}).get(layer) if layer else line.get(key)) for line in log]
    return [(step, value) for step, value in found if value is not None]


def course(log: list[dict[str, Any]], names: list[str]) -> list[tuple[str, str]]:
    """Return drawings and captions of what else a training did: its steps, its routers, the loads of its experts."""
    steps = {"learning rate": of(log, "learning_rate"), "norm of the gradient": of(log, "gradient_norm")}
    out = [(figures.grid({key: {"all": points} for key, points in steps.items()}, "step"), "Rate and gradient.")]
    layers = list(dict.fromkeys(layer for line in log for layer in line.get("experts", {})))
    if not layers:
        return out
    routers = {
        label: {f"layer {layer}": of(log, key, layer) for layer in layers}
        for key, label in (("router_entropy", "entropy (nats)"), ("z", "z"))
    }
    even = f"ln {len(names)} = {math.log(len(names)):.2f}"
    caption = f"Routers by layer: how undecided they are (even over all experts: {even}), and how large their logits."
    out.append((figures.grid(routers, "step"), caption))
    shown = spread(layers, MOST_LAYERS)
    loads = {f"layer {layer}": stack(of(log, "experts", layer), names) for layer in shown}
    which = "of every sparse layer" if shown == layers else f"of {len(shown)} of {len(layers)} sparse layers"
    out.append((figures.grid(loads, "step", stacked=True), f"Share of the picks that went to each expert, {which}."))
    return out


def spread(layers: list[str], most: int) -> list[str]:
    """Return all layers, or so many of them, the first and the last among them, evenly apart."""
    if len(layers) <= most:
        return layers
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


def stack(points: Sequence[tuple[float, Any]], names: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Return the shares of a layer's experts as a series each, by family."""
    return {name: [(step, shares[e]) for step, shares in points] for e, name in enumerate(names)}
