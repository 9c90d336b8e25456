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
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from polyclinic.corpus.tables import PACKED_RECORDS, PACKS, write_table
from polyclinic.errors import CheckpointError
from polyclinic.progress import Progress
from polyclinic.prompts import Segment, segments, stretches
from polyclinic.records import Document
from polyclinic.runs import digest, read_json, write_json

IGNORED = -100
PADDING_LANGUAGE = -1
UNKNOWN_FAMILY = -1
META = "packs.json"
SHARD = "packs-00000.parquet"
RECORDS = "packed-records.parquet"

LossOn = Literal["all", "answers"]


class Specials(NamedTuple):
    """Ids of the tokens that end a turn and fill a pack."""

    end: int
    pad: int


class Packing(NamedTuple):
    """How documents become packs: tokens per pack, which tokens carry loss, and the order's seed."""

    pack_tokens: int
    loss_on: LossOn
    seed: int


@dataclass
class Pack:
    """One row being filled; arrays of equal length."""

    input_ids: "array[int]" = field(default_factory=lambda: array("i"))
    labels: "array[int]" = field(default_factory=lambda: array("i"))
    position_ids: "array[int]" = field(default_factory=lambda: array("i"))
    language_ids: "array[int]" = field(default_factory=lambda: array("h"))
    family_ids: "array[int]" = field(default_factory=lambda: array("h"))
    records: list[str] = field(default_factory=list)

    def extend(self, tokens: Sequence[int], labels: Sequence[int], language_id: int, family_id: int) -> None:
        """Append one document, or a piece of one, as a unit of its own."""
        self.input_ids.extend(tokens)
        self.labels.extend([IGNORED, *labels[1:]])
        self.position_ids.extend(range(len(tokens)))
        self.language_ids.extend([language_id] * len(tokens))
        self.family_ids.extend([family_id] * len(tokens))

    def row(self, length: int, pad_id: int) -> dict[str, Any]:
        """Return the row, filled up with padding that is a document nobody attends from or learns.

        Beside the columns of the table stand the ids of its `records`.
        """
        gap = length - len(self.input_ids)
        if gap:
            self.extend([pad_id] * gap, [IGNORED] * gap, PADDING_LANGUAGE, UNKNOWN_FAMILY)
        return {name: list(getattr(self, name)) for name in (*PACKS.names, "records")}


def encode(document: Document, tokenizer: Tokenizer, end_id: int, loss_on: LossOn) -> tuple[list[int], list[int]]:
    """Return token ids and labels of one document; label = id where the token carries loss."""
    return encode_segments(segments(document.turns), tokenizer, end_id, loss_on)


def encode_segments(
    pieces: Iterable[Segment], tokenizer: Tokenizer, end_id: int, loss_on: LossOn = "all"
) -> tuple[list[int], list[int]]:
    """Return token ids and labels of segments, the ids being those of the rendered chat template.

    All text up to an end token is tokenised as one string, as engines do: cut finer, a vocabulary with
    tokens of a mark and a line end would be trained on others than it is asked with. No name of a special token
    in it becomes that token where `tokenizer` is from `load_tokenizer`.
    """
    tokens: list[int] = []
    labels: list[int] = []
    for stretch in stretches(pieces):
        text = "".join(piece.text for piece in stretch)
        last = stretch[-1]
        answer_from = len(text) - len(last.text) if last.answer else len(text)
        found = tokenizer.encode(text, add_special_tokens=False)
        ends = [end_id] if last.ends else []
        tokens += found.ids + ends
        if loss_on == "all":
            labels += found.ids + ends
        else:
            begins = [first for first, _ in found.offsets]
            labels += [i if at >= answer_from else IGNORED for i, at in zip(found.ids, begins, strict=True)] + ends
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
            pack.records.append(document.id)
            start += room
            if len(pack.input_ids) == length:
                yield pack.row(length, pad_id)
                pack = Pack()
    if pack.input_ids:
        yield pack.row(length, pad_id)


def load_tokenizer(folder: Path) -> tuple[Tokenizer, Specials]:
    """Read a checkpoint's tokenizer and its end and padding tokens.

    Raises CheckpointError where there is none or it names no end token; padding falls back to it.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(folder, "holds no tokenizer.json", "give a checkpoint with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    settings = read_json(folder / "tokenizer_config.json")
    names = [settings.get("eos_token"), settings.get("pad_token") or settings.get("eos_token")]
    ids = [tokenizer.token_to_id(n["content"] if isinstance(n, dict) else str(n)) for n in names]
    end, pad = ids
    if end is None or pad is None:
        raise CheckpointError(
            folder, f"the tokenizer lacks its end token {names[0]!r}", "correct tokenizer_config.json"
        )
    return tokenizer, Specials(end, pad)


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """Return a digest of a vocabulary's tokens and ids: packs and the model that reads them must agree on it."""
    return digest(tokenizer.get_vocab(with_added_tokens=True))


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    specials: Specials,
    expert_of: Callable[[str], int],
    folder: Path,
    options: Packing,
    progress: Progress,
) -> dict[str, Any]:
    """Pack all documents, shuffled by seed, into one shard; returns the facts for the manifest."""
    chosen = list(documents)
    random.Random(options.seed).shuffle(chosen)  # noqa: S311 - an order to be repeated, not a secret
    codes = sorted({d.language for d in chosen})
    ids = {code: (i, expert_of(code)) for i, code in enumerate(codes)}
    tokens = dict.fromkeys(codes, 0)

    def encoded() -> Iterator[tuple[Document, list[int], list[int]]]:
        for done, document in enumerate(chosen, start=1):
            token_ids, labels = encode(document, tokenizer, specials.end, options.loss_on)
            tokens[document.language] += len(token_ids)
            if done % 500 == 0 or done == len(chosen):
                progress.advance(done, len(chosen), f"{sum(tokens.values()):,} tokens")
            yield document, token_ids, labels

    held: list[dict[str, Any]] = []

    def noted() -> Iterator[dict[str, Any]]:
        rows = fill(encoded(), options.pack_tokens, specials.pad, lambda code: ids[code])
        for number, row in enumerate(rows):
            held.extend({"pack": number, "id": record} for record in row.pop("records"))
            yield row

    count = write_table(folder / SHARD, PACKS, noted())
    write_table(folder / RECORDS, PACKED_RECORDS, held)
    facts = {
        "packs": count,
        "pack_tokens": options.pack_tokens,
        "tokens": tokens,
        "languages": codes,
        "expert_of": {code: expert for code, (_, expert) in ids.items()},
        "vocabulary": vocabulary_digest(tokenizer),
        "specials": specials._asdict(),
    }
    write_json(folder / META, facts)
    return {"packs": count, "tokens": sum(tokens.values())}
