"""Tokenise documents and lay them end to end in packs, each token with its language and family.

Positions restart at 0 with every document, which is how attention is kept inside it: transformers
builds a block-diagonal mask from restarting positions when no padding mask is given. A document
longer than a pack goes on in the next one as a document of its own. The first token of a document
carries no loss, since nothing of its own document stands before it.
"""

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from polyclinic.corpus.tables import PACKS, write_table
from polyclinic.errors import CheckpointError
from polyclinic.progress import Progress
from polyclinic.prompts import segments
from polyclinic.records import Document
from polyclinic.runs import write_json

IGNORED = -100
PADDING_LANGUAGE = -1
UNKNOWN_FAMILY = -1
META = "packs.json"
SHARD = "packs-00000.parquet"

LossOn = Literal["all", "answers"]


@dataclass
class Pack:
    """One row being filled; arrays of equal length."""

    input_ids: "array[int]" = field(default_factory=lambda: array("i"))
    labels: "array[int]" = field(default_factory=lambda: array("i"))
    position_ids: "array[int]" = field(default_factory=lambda: array("i"))
    language_ids: "array[int]" = field(default_factory=lambda: array("h"))
    family_ids: "array[int]" = field(default_factory=lambda: array("b"))

    def extend(self, tokens: Sequence[int], labels: Sequence[int], language_id: int, family_id: int) -> None:
        """Append one document, or a piece of one, as a unit of its own."""
        self.input_ids.extend(tokens)
        self.labels.extend([IGNORED, *labels[1:]])
        self.position_ids.extend(range(len(tokens)))
        self.language_ids.extend([language_id] * len(tokens))
        self.family_ids.extend([family_id] * len(tokens))

    def row(self, length: int, pad_id: int) -> dict[str, Any]:
        """Return the row, filled up with padding that is a document nobody attends from or learns."""
        gap = length - len(self.input_ids)
        if gap:
            self.extend([pad_id] * gap, [IGNORED] * gap, PADDING_LANGUAGE, UNKNOWN_FAMILY)
        return {name: list(getattr(self, name)) for name in PACKS.names}


def encode(document: Document, tokenizer: Tokenizer, end_id: int, loss_on: LossOn) -> tuple[list[int], list[int]]:
    """Return token ids and labels of one document; label = id where the token carries loss."""
    tokens: list[int] = []
    labels: list[int] = []
    for piece in segments(document.turns):
        ids = tokenizer.encode(piece.text, add_special_tokens=False).ids + ([end_id] if piece.ends else [])
        tokens += ids
        labels += ids if piece.answer or loss_on == "all" else [IGNORED] * len(ids)
    return tokens, labels


def fill(
    documents: Iterable[tuple[Document, list[int], list[int]]],
    length: int,
    pad_id: int,
    ids_of: Callable[[str], tuple[int, int]],
) -> Iterator[dict[str, Any]]:
    """Lay encoded documents into packs of `length` tokens, in the order given.

    `ids_of` maps a language code to its (language id, family id).
    """
    pack = Pack()
    for document, tokens, labels in documents:
        start = 0
        while start < len(tokens):
            room = length - len(pack.input_ids)
            piece = slice(start, start + room)
            pack.extend(tokens[piece], labels[piece], *ids_of(document.language))
            start += room
            if len(pack.input_ids) == length:
                yield pack.row(length, pad_id)
                pack = Pack()
    if pack.input_ids:
        yield pack.row(length, pad_id)


def special_ids(tokenizer: Tokenizer, folder: Path, end: str, pad: str) -> tuple[int, int]:
    """Return the ids of the end and padding tokens; raises CheckpointError if one is unknown."""
    ids = [tokenizer.token_to_id(name) for name in (end, pad)]
    if None in ids:
        raise CheckpointError(folder, f"the tokenizer lacks '{end}' or '{pad}'", "correct its special tokens")
    return ids[0], ids[1]


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    specials: tuple[int, int],
    expert_of: Callable[[str], int],
    folder: Path,
    length: int,
    loss_on: LossOn,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Pack all documents, shuffled by seed, into one shard; returns the facts for the manifest."""
    chosen = list(documents)
    random.Random(seed).shuffle(chosen)  # noqa: S311 - an order to be repeated, not a secret
    codes = sorted({d.language for d in chosen})
    ids = {code: (i, expert_of(code)) for i, code in enumerate(codes)}
    tokens = dict.fromkeys(codes, 0)

    def encoded() -> Iterator[tuple[Document, list[int], list[int]]]:
        for done, document in enumerate(chosen, start=1):
            ids_, labels = encode(document, tokenizer, specials[0], loss_on)
            tokens[document.language] += len(ids_)
            if done % 500 == 0 or done == len(chosen):
                progress.advance(done, len(chosen), f"{sum(tokens.values()):,} tokens")
            yield document, ids_, labels

    rows = fill(encoded(), length, specials[1], lambda code: ids[code])
    count = write_table(folder / SHARD, PACKS, rows)
    facts = {"packs": count, "pack_tokens": length, "tokens": tokens, "languages": codes}
    write_json(folder / META, facts)
    return {"packs": count, "tokens": sum(tokens.values())}
