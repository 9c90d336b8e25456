"""Held-out loss per language: nats per token, and bits per byte, which vocabularies cannot flatter."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from polyclinic.moe.checkpoint import load_model
from polyclinic.moe.forward import batches, padded
from polyclinic.prompts import plain_text
from polyclinic.records import Document

MAX_TOKENS = 512  # of one document


@torch.no_grad()
def held_out_loss(checkpoint: Path, documents: Sequence[Document]) -> dict[str, dict[str, float]]:
    """Score documents with plain forwards; language -> loss, bits_per_byte, tokens, documents."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    model = load_model(checkpoint).eval()
    rows = [tokenizer.encode(plain_text(d), add_special_tokens=False).ids[:MAX_TOKENS] for d in documents]
    sums: dict[str, list[float]] = {}
    for batch in batches(rows):
        tokens_BS = padded([rows[i] for i in batch])
        logits = model(input_ids=tokens_BS, use_cache=False).logits[:, :-1].float()
        losses_BS = F.cross_entropy(logits.transpose(1, 2), tokens_BS[:, 1:], reduction="none")
        for row, index in enumerate(batch):
            count = len(rows[index]) - 1
            # One character of a byte-level token is one byte; decoding would replace characters that are cut.
            size = sum(len(tokenizer.id_to_token(token) or "") for token in rows[index][1:])
            total = sums.setdefault(documents[index].language, [0.0, 0.0, 0.0, 0.0])
            for i, value in enumerate((losses_BS[row, :count].sum().item(), count, size, 1)):
                total[i] += value
    return {
        code: {"loss": nats / tokens, "bits_per_byte": nats / math.log(2) / size, "tokens": tokens, "documents": n}
        for code, (nats, tokens, size, n) in sorted(sums.items())
        if tokens
    }
