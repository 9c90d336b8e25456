"""The currency between stages of text: documents made of turns, and exam questions.

A plain text is a document with one turn of role `text`; a dialogue has `user` and `assistant`
turns. `group` joins translations of one text, so that they are held out, counted and resampled
together.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Role = Literal["text", "user", "assistant"]


class Turn(NamedTuple):
    """One piece of a document and who speaks it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text or conversation with its origin.

    `id` names it within its source and language; `split` is `train`, `validation` or `held_out`
    (empty: undecided); `category` is what kind of text it is (empty: not said).
    """

    id: str
    language: str
    source: str
    licence: str
    group: str
    turns: tuple[Turn, ...]
    split: str = ""
    category: str = ""
    url: str = ""

    def text(self) -> str:
        """Return the content of all turns, one a line."""
        return "\n".join(turn.content for turn in self.turns)

    def row(self) -> dict[str, Any]:
        """Return the document as an Arrow row."""
        return {**asdict(self), "turns": [t._asdict() for t in self.turns]}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Document":
        """Rebuild a document from an Arrow row."""
        turns = tuple(Turn(t["role"], t["content"]) for t in row["turns"])
        return cls(**{**row, "turns": turns})


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question; `answers` are indices into `options`, one for most exams."""

    id: str
    language: str
    source: str
    licence: str
    group: str
    split: str
    question: str
    options: tuple[str, ...]
    answers: tuple[int, ...]
    context: str = ""

    def row(self) -> dict[str, Any]:
        """Return the question as an Arrow row."""
        return {**asdict(self), "options": list(self.options), "answers": list(self.answers)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Question":
        """Rebuild a question from an Arrow row."""
        return cls(**{**row, "options": tuple(row["options"]), "answers": tuple(row["answers"])})


def held_out(documents: Iterable[Document], cap: int) -> list[Document]:
    """Take the first held-out documents of each language, at most `cap` of each."""
    taken: Counter[str] = Counter()
    out = []
    for document in documents:
        if document.split == "held_out" and taken[document.language] < cap:
            taken[document.language] += 1
            out.append(document)
    return out
