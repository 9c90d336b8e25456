"""Answer requests in a process that can be killed; a file counts what reached the model."""

import time
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from polyclinic.evaluate.backends import kept
from polyclinic.evaluate.backends.local import LocalModel

CHUNK = 6


class Counted(LocalModel):
    """Writes down each request that reaches it before it answers."""

    log: Path
    pause = 0.0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:
        with self.log.open("a") as log:
            log.writelines(f"{request.args!r}\n" for request in requests)
        time.sleep(self.pause)
        return super().loglikelihood(requests)


def questions(count: int) -> list[Instance]:
    out = []
    for number in range(count):
        doc = {"language": "en"}
        prompt = f"Question: {number} fever\nAnswer:"
        out += [Instance("loglikelihood", doc, (prompt, f" {word}"), i) for i, word in enumerate(("hand", "water"))]
    return out


def answer(checkpoint: Path, folder: Path, log: Path, pause: float) -> Any:
    """Answer the questions; `pause` seconds go by in each chunk between asking and answering."""
    kept.CHUNKS["loglikelihood"] = CHUNK
    model = Counted(checkpoint)
    model.log, model.pause = log, pause
    with kept.opened(folder) as store:
        return kept.Kept(model, store, model.facts()).loglikelihood(questions(20))
