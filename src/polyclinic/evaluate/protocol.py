"""How questions are put to a model: what is scored, how many examples stand before, in whose words.

A protocol is a value; every figure is printed with the one it was measured under. `paper` is the
published protocol of Apollo-MoE with its faults (arXiv 2410.10626 and its code, evaluation scripts).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scoring = Literal["letter", "option", "generate", "chain"]
Instruction = Literal["native", "english", "none"]
GENERATED: tuple[Scoring, ...] = ("generate", "chain")


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a prompt holds and what is read of the answer.

    `letter` scores the letters of listed options, `option` the full text of each option per byte,
    `generate` and `chain` what the model writes, at most `new_tokens` tokens of it.
    """

    scoring: Scoring = "letter"
    shots: int = 0
    seed: int = 0  # of the shots
    instruction: Instruction = "native"
    layout: str = "plain"  # a name in data/exam_layouts.yaml
    new_tokens: int = 256
    shots_from_test: bool = False  # a fault of the paper: examples come out of the test set, item by item
    most_characters: int | None = None  # of a prompt; shots that do not fit are left out, longer questions too
    majority_letter: bool = False  # the paper's parser in place of ours
    first_letter: bool = False  # the paper: of several right answers only the first counts

    def facts(self) -> dict[str, Any]:
        """Return the protocol as plain values."""
        return asdict(self)


PROTOCOLS = {
    "letter": Protocol(),
    "option": Protocol(scoring="option"),
    "generate": Protocol(scoring="generate"),
    "chain": Protocol(scoring="chain", new_tokens=1024),
    "paper": Protocol(
        scoring="generate",
        shots=3,
        instruction="native",
        layout="paper",
        shots_from_test=True,
        most_characters=4096,
        majority_letter=True,
        first_letter=True,
    ),
}
