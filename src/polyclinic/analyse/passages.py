"""Texts ready for a model: which language, which translations belong together, which tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from polyclinic.prompts import plain_text
from polyclinic.records import Document


class Passage(NamedTuple):
    """The beginning of a document in tokens; translations of one text share `group`."""

    language: str
    group: str
    tokens: list[int]


def passages(checkpoint: Path, documents: Iterable[Document], max_tokens: int) -> list[Passage]:
    """Encode documents for plain forwards, at most `max_tokens` tokens of each; empty ones are left out."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    kept = list(documents)
    encodings = tokenizer.encode_batch([plain_text(d) for d in kept], add_special_tokens=False)
    found = (Passage(d.language, d.group, e.ids[:max_tokens]) for d, e in zip(kept, encodings, strict=True))
    return [passage for passage in found if passage.tokens]
