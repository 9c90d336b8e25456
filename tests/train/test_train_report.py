"""Loss curves: families out of languages, weighted by tokens, smoothed as said."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from polyclinic.train.report import MOST_LAYERS, SMOOTH, by_family, course, fragment, of, read_log, spread, stack

EXPERT_OF = {"da": 1, "en": 0, "no": 1}
NAMES = ["English", "Nordic", "Nobody"]


def line(step: int, **losses: tuple[float, int]) -> dict[str, Any]:
    languages = {code: {"loss": loss, "tokens": tokens} for code, (loss, tokens) in losses.items()}
    return {"step": step, "loss": 1.5, "machine": {"tokens_per_second": 10.0 * step}, "languages": languages}


def test_a_family_is_the_mean_over_the_tokens_of_its_languages() -> None:
    curves = by_family([line(5, da=(2.0, 10), en=(7.0, 4), no=(3.0, 30))], EXPERT_OF, NAMES)
    assert curves == {"English": [(5, 7.0)], "Nordic": [(5, pytest.approx((2 * 10 + 3 * 30) / 40))]}


def test_a_curve_is_a_running_mean_that_skips_steps_without_the_family() -> None:
    log = [line(1, en=(4.0, 1)), line(2, da=(9.0, 1)), line(3, en=(2.0, 5)), line(4, en=(1.0, 2))]
    second = SMOOTH * 4 + (1 - SMOOTH) * 2
    expected = [(1, 4.0), (3, pytest.approx(second)), (4, pytest.approx(SMOOTH * second + (1 - SMOOTH) * 1))]
    assert by_family(log, EXPERT_OF, NAMES)["English"] == expected


def test_the_section_shows_families_languages_and_the_middle_speed(tmp_path: Path) -> None:
    log = [line(1, da=(2.5, 1000), en=(4.27, 5)), line(2, en=(3.125, 6)), line(9, en=(2.0, 7))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in log), "utf-8")
    assert read_log(tmp_path) == log
    families = {"families": [{"name": name} for name in NAMES], "expert_of": EXPERT_OF}
    html = fragment(tmp_path, families).html
    assert "Nordic" in html
    assert "Nobody" not in html
    assert "Median speed 20 tokens/s" in html
    for cell in ("da", "2.50", "1,000", "2.00"):
        assert f">{cell}<" in html
    assert ">4.27<" not in html  # only the last of each language


def routed(step: int, layers: int) -> dict[str, Any]:
    """Return a line with routers; layer n has entropy n / 10 + step."""
    names = [str(number) for number in range(layers)]
    return line(step, en=(2.0, 1)) | {
        "learning_rate": 0.5 / step, "gradient_norm": None if step == 1 else 2.0,
        "experts": {name: [0.25, 0.75] for name in names},
        "router_entropy": {name: int(name) / 10 + step for name in names}, "z": dict.fromkeys(names, 1.0),
    }  # fmt: skip


def test_points_are_taken_from_the_lines_that_have_them() -> None:
    log = [line(1, en=(2.0, 1)), routed(2, 3), routed(4, 3)]
    assert of(log, "loss") == [(1, 1.5), (2, 1.5), (4, 1.5)]
    assert of(log, "gradient_norm") == [(2, 2.0), (4, 2.0)]
    assert of(log, "router_entropy", "2") == [(2, 2.2), (4, 4.2)]
    assert of(log, "router_entropy", "7") == []
    assert stack(of(log, "experts", "1"), ["a", "b"]) == {"a": [(2, 0.25), (4, 0.25)], "b": [(2, 0.75), (4, 0.75)]}


def test_many_layers_are_drawn_first_to_last_and_evenly_apart() -> None:
    layers = [str(number) for number in range(3, 28)]
    shown = spread(layers, MOST_LAYERS)
    assert (shown[0], shown[-1], len(shown)) == ("3", "27", MOST_LAYERS)
    gaps = {int(b) - int(a) for a, b in pairwise(shown)}
    assert max(gaps) - min(gaps) <= 1
    assert spread(layers[:MOST_LAYERS], MOST_LAYERS) == layers[:MOST_LAYERS]


def test_the_course_of_a_mixture_is_rate_gradient_routers_and_loads_and_of_a_base_the_first_alone() -> None:
    names = ["English", "עברית"]
    drawn = course([routed(1, 8), routed(2, 8)], names)
    texts = [set(re.findall(r">([^<>]+)</text>", svg)) for svg, _ in drawn]
    assert {"learning rate", "norm of the gradient"} <= texts[0]
    assert {"entropy (nats)", "z", *(f"layer {number}" for number in range(8))} <= texts[1]
    assert {"עברית", "layer 0", "layer 7"} <= texts[2]
    assert "6 of 8 sparse layers" in drawn[2][1]
    assert f"ln 2 = {math.log(2):.2f}" in drawn[1][1]
    assert len(course([line(1, en=(2.0, 1))], names)) == 1
