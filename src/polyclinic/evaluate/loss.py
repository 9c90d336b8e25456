"""Held-out loss per language: nats per token, and bits per byte, which vocabularies cannot flatter."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from polyclinic.moe.checkpoint import load_model
from polyclinic.moe.forward import token_losses
from polyclinic.prompts import plain_text
from polyclinic.records import Document

MAX_TOKENS = 512  # of one document


class Scored(NamedTuple):
    """One document under a model: what it costs, over how many tokens and bytes."""

    nats: float
    tokens: int
    size: int  # bytes


def document_losses(checkpoint: Path, documents: Sequence[Document]) -> list[Scored]:
    """Score documents with plain forwards, at most MAX_TOKENS tokens of each, in their order."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    model = load_model(checkpoint).eval()
    rows = [tokenizer.encode(plain_text(d), add_special_tokens=False).ids[:MAX_TOKENS] for d in documents]
    out = [Scored(0.0, 0, 0)] * len(rows)
    for index, losses_S in token_losses(model, rows):
        # One character of a byte-level token is one byte; decoding would replace characters that are cut.
        size = sum(len(tokenizer.id_to_token(token) or "") for token in rows[index][1:])
        out[index] = Scored(losses_S.sum().item(), len(losses_S), size)
    return out


def held_out_loss(checkpoint: Path, documents: Sequence[Document]) -> dict[str, dict[str, float]]:
    """Score documents; language -> loss, bits_per_byte, tokens, documents."""
    groups: dict[str, list[Scored]] = {}
    for document, scored in zip(documents, document_losses(checkpoint, documents), strict=True):
        groups.setdefault(document.language, []).append(scored)
    return {code: row for code in sorted(groups) if (row := _row(groups[code]))["tokens"]}


def _row(scored: Sequence[Scored]) -> dict[str, float]:
    nats, tokens, size = (sum(values) for values in zip(*scored, strict=True))
    loss = {"loss": nats / tokens, "bits_per_byte": nats / math.log(2) / size} if tokens else {}
    return {**loss, "tokens": tokens, "documents": len(scored)}
