"""Loss curves: families out of languages, weighted by tokens, smoothed as said."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyclinic.train.report import SMOOTH, by_family, fragment, read_log

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
