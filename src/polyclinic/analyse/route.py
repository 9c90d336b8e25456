"""Route texts through a mixture, batch by batch, and count where they go."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from polyclinic.analyse.capture import watching
from polyclinic.analyse.counting import Batch, Counts, Text
from polyclinic.analyse.texts import BUCKETS, Survey, place_of
from polyclinic.errors import CheckpointError
from polyclinic.moe.forward import batches, padded
from polyclinic.moe.router import UNKNOWN_FAMILY
from polyclinic.prompts import plain_text
from polyclinic.records import Document

MAX_TOKENS = 512  # of one document
WINDOW = 512  # documents that are sorted by length and batched together


class Encoded(NamedTuple):
    """A document's token ids, and which of them count: special ones do not."""

    ids: list[int]
    counts: list[bool]


def encoder(checkpoint: Path) -> Callable[[list[Document]], list[Encoded]]:
    """Return what turns documents into tokens, with the special tokens that the model was trained to see.

    Raises CheckpointError without a tokenizer.json.
    """
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(checkpoint, "holds no tokenizer.json", "add the tokenizer of this model")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    def encode(documents: list[Document]) -> list[Encoded]:
        found = tokenizer.encode_batch([plain_text(document) for document in documents])
        rows = [(e.ids[:MAX_TOKENS], e.special_tokens_mask[:MAX_TOKENS]) for e in found]
        return [
            Encoded(ids, [not (is_special or i in special) for i, is_special in zip(ids, mask, strict=True)])
            for ids, mask in rows
        ]

    return encode


def speller(checkpoint: Path) -> Callable[[int], str | None]:
    """Return what spells a token id, None for one that is part of a character."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def spelt(number: int) -> str | None:
        text = tokenizer.decode([number], skip_special_tokens=False)
        return None if not text or "\ufffd" in text else text

    return spelt


def windows(
    documents: Iterable[Document], found: Survey, encode: Callable[[list[Document]], list[Encoded]]
) -> Iterator[list[Text]]:
    """Yield the documents to be routed, encoded, some hundreds at a time."""
    index = {code: i for i, code in enumerate(found.languages)}
    chosen = (document for document in documents if found.takes(document))
    while window := list(islice(chosen, WINDOW)):
        texts = []
        for document, encoded in zip(window, encode(window), strict=True):
            if any(encoded.counts):
                language = index[document.language]
                bucket = language * BUCKETS + found.bucket_number(document.group)
                texts.append(Text(document.id, language, bucket, place_of(document.group), *encoded))
        yield texts


@torch.no_grad()
def route(
    model: PreTrainedModel,
    texts: Iterable[list[Text]],
    counts: Counts,
    families: list[int] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Run forwards over windows of texts and count; `families` (by language) are forced on an attached model.

    `advance` is told how many documents are done.
    """
    decoder, done = model.get_decoder(), 0
    with watching(model, counts.see):
        for window in texts:
            rows = [text.ids for text in window]
            for batch in batches(rows):
                tokens_BS = padded([rows[i] for i in batch]).to(model.device)
                counts.begin(Batch([window[i] for i in batch], tokens_BS.shape[1]))
                extra = {}
                if families is not None:
                    family_B = torch.tensor([families[window[i].language] for i in batch])
                    extra["family_ids"] = family_B[:, None].expand(tokens_BS.shape).to(model.device)
                decoder(input_ids=tokens_BS, use_cache=False, **extra)
                counts.end()
            done += len(window)
            advance(done)


def families_of(languages: Iterable[str], expert_of: dict[str, int]) -> list[int]:
    """Return the family's expert of each language, -1 where no family serves it."""
    return [expert_of.get(code, UNKNOWN_FAMILY) for code in languages]
