"""How long a training is, and its learning rate step by step."""

import math
from collections.abc import Callable

from polyclinic.recipe import TrainingSection


def steps_of(settings: TrainingSection, num_packs: int, pack_tokens: int) -> int:
    """Return the optimiser steps of a training given in steps, tokens or epochs; the last step may go beyond."""
    packs = settings.batch_packs * settings.accumulate
    if settings.tokens is not None:
        return math.ceil(settings.tokens / (packs * pack_tokens))
    if settings.epochs is not None:
        return math.ceil(settings.epochs * num_packs / packs)
    return int(settings.steps or 0)


def share_of_peak(settings: TrainingSection, steps: int) -> Callable[[int], float]:
    """Return the learning rate of a step, counted from 0, as a share of its peak.

    A linear rise over `warmup_steps`, then `schedule`, which would reach `final_rate` at step
    `steps`, one behind the last: cosine (arXiv 1608.03983), linear, constant, or wsd, which is
    constant and falls linearly over the last `decay_share` of all steps (arXiv 2404.06395).
    """
    warmup, final = settings.warmup_steps, settings.final_rate
    falling = max(1, round(settings.decay_share * steps))

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        match settings.schedule:
            case "cosine":
                left = 0.5 * (1.0 + math.cos(math.pi * done))
            case "linear":
                left = 1.0 - done
            case "wsd":
                left = min(1.0, (steps - step) / falling)
            case "constant":
                return 1.0
        return final + (1.0 - final) * max(0.0, left)

    return share
