"""Length and learning rate by their formulas."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from polyclinic.recipe import TrainingSection
from polyclinic.train.schedule import share_of_peak, steps_of

SCHEDULES = ("cosine", "linear", "constant", "wsd")


@st.composite
def lengths(draw: st.DrawFn) -> tuple[TrainingSection, int]:
    steps = draw(st.integers(2, 500))
    values = {
        "schedule": draw(st.sampled_from(SCHEDULES)),
        "warmup_steps": draw(st.integers(0, steps - 1)),
        "final_rate": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "decay_share": draw(st.sampled_from([0.1, 0.3])),
    }
    return TrainingSection(steps=steps, **values), steps


@settings(deadline=None)
@given(lengths())
def test_the_rate_rises_to_its_peak_never_rises_again_and_ends_where_it_is_said(drawn: tuple) -> None:
    section, steps = drawn
    share = share_of_peak(section, steps)
    rates = [share(step) for step in range(steps + 1)]
    warm = section.warmup_steps
    assert all(rates[step] == pytest.approx(step / warm) for step in range(warm))
    falls = section.schedule == "wsd" and warm > steps - round(section.decay_share * steps)
    assert rates[warm] == pytest.approx(1.0) or falls or section.final_rate == 1.0
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[warm:], rates[warm + 1 :], strict=False))
    assert rates[steps] == pytest.approx(1.0 if section.schedule == "constant" else section.final_rate)


def test_each_schedule_is_its_formula() -> None:
    def rates(**values: object) -> list[float]:
        share = share_of_peak(TrainingSection(steps=10, **values), 10)  # type: ignore[arg-type]
        return [share(step) for step in range(11)]

    cosine = [0.5 * (1 + math.cos(math.pi * (n - 2) / 8)) for n in range(2, 11)]
    assert rates(schedule="cosine", warmup_steps=2) == pytest.approx([0, 0.5, *cosine])
    assert rates(schedule="linear", final_rate=0.5) == pytest.approx([1 - 0.05 * n for n in range(11)])
    assert rates(schedule="wsd", decay_share=0.4) == pytest.approx([1] * 7 + [0.75, 0.5, 0.25, 0])
    assert rates(schedule="constant", warmup_steps=1, final_rate=0.2) == [0] + [1] * 10


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 1.0}, 25),
        ({"epochs": 0.5}, 13),
        ({"epochs": 1.0, "accumulate": 3}, 9),
        ({"tokens": 1000}, 3),
        ({"tokens": 801}, 3),
        ({"tokens": 800}, 2),
    ],
)
def test_tokens_and_epochs_become_whole_steps(values: dict[str, float], steps: int) -> None:
    section = TrainingSection(batch_packs=4, **values)  # type: ignore[arg-type]
    assert steps_of(section, num_packs=100, pack_tokens=100) == steps


@pytest.mark.parametrize("values", [{}, {"steps": 1, "tokens": 5}, {"steps": 1, "epochs": 1.0, "tokens": 5}])
def test_a_length_is_given_once(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="exactly one of steps, tokens, epochs"):
        TrainingSection(**values)  # type: ignore[arg-type]


def test_a_warm_up_that_never_ends_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_steps 5 leaves none of 5 steps"):
        TrainingSection(steps=5, warmup_steps=5)
