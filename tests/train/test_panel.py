"""The table of a training: every family's row, figures as people read them, and languages where names lack."""

from typing import Any

import pytest

from polyclinic.train.metrics import Families
from polyclinic.train.panel import NONE, duration, panel

EXPERT_OF = {"ar": 1, "en": 0, "he": 1, "th": 2}
LINE: dict[str, Any] = {
    "step": 1200, "loss": 3.2, "learning_rate": 4.1e-4, "gradient_norm": None,
    "families": {"0": {"loss": 2.5, "tokens": 30}, "2": {"loss": 4.0, "tokens": 10}},
    "machine": {"tokens_per_second": 12345.6, "tflops": 0.1, "mfu": 0.2134, "memory_gb": 1.26},
}  # fmt: skip
ROUTED = {
    "experts": {"3": [1.0, 0.0, 0.0], "11": [0.5, 0.3, 0.2]},
    "router_entropy": {"3": 0.1, "11": 0.7},
    "own_expert": {"3": {}, "11": {"0": 0.25}},
}


def test_a_mixture_shows_the_loads_of_its_last_sparse_layer_and_families_without_text() -> None:
    shown = panel(LINE | ROUTED, Families(EXPERT_OF, ["Germanic", "الساميّة", "ไทย"]), 7300)
    assert dict(shown.figures) == {
        "step": "1,200", "loss": "3.200", "rate": "4.10e-04", "gradient": NONE, "entropy": "0.70",
        "tokens/s": "12,346", "MFU": "21.3 %", "memory": "1.3 GB", "left": "2 h 2 min",
    }  # fmt: skip
    assert "layer 11" in shown.columns[3]
    assert shown.rows == [
        ["0", "2.500", "75.0", "50.0", "25.0", "Germanic"],
        ["1", NONE, NONE, "30.0", NONE, "الساميّة"],
        ["2", "4.000", "25.0", "20.0", NONE, "ไทย"],
    ]
    assert all(len(row) == len(shown.columns) for row in shown.rows)


def test_a_base_shows_families_by_their_languages_and_no_routing() -> None:
    shown = panel(LINE, Families(EXPERT_OF), 12)
    assert "entropy" not in dict(shown.figures)
    assert shown.rows == [["0", "2.500", "75.0", "en"], ["1", NONE, NONE, "ar he"], ["2", "4.000", "25.0", "th"]]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (3600, "1 h 0 min")]
)
def test_a_time_is_told_in_its_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
