"""Tokenise documents and lay them in packs, each token with its language and family.

Two passes: documents are tokenised to disk once, then packs are planned from their lengths and
their tokens fetched. Positions restart at 0 with every document, which is how attention is kept
inside it: transformers builds a block-diagonal mask from restarting positions when no padding mask
is given. A piece of a document that is longer than a pack is a document of its own. The first
token of each carries no loss, since nothing of its own document stands before it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from polyclinic.corpus.pack import fit
from polyclinic.corpus.pack.mixture import Group, Mixing, draw
from polyclinic.corpus.pack.shards import PADDING_LANGUAGE, RECORDS, SHARD, UNKNOWN_FAMILY, ShardWriter
from polyclinic.corpus.pack.tokens import IGNORED, Store
from polyclinic.errors import CheckpointError, PolyclinicError
from polyclinic.progress import Progress
from polyclinic.prompts import Segment, segments, stretches
from polyclinic.records import Document
from polyclinic.runs import SCRATCH, digest, read_json, write_json

META = "packs.json"
AT_ONCE = 256  # documents that are tokenised together

LossOn = Literal["all", "answers"]

__all__ = ["IGNORED", "META", "PADDING_LANGUAGE", "RECORDS", "SHARD", "UNKNOWN_FAMILY"]


class Specials(NamedTuple):
    """Ids of the tokens that end a turn and fill a pack."""

    end: int
    pad: int


class Sink(Protocol):
    """What takes encoded documents: a token store, or what only measures them."""

    def add(self, record: str, group: int, tokens: Sequence[int], labels: Sequence[int]) -> None:
        """Append one document."""

    def seal(self) -> None:
        """End the adding."""


class Packing(NamedTuple):
    """How documents become packs.

    Tokens per pack, which tokens carry loss, the order's seed, how pieces
    fit, and how often each document appears (once, if nothing is said).
    """

    pack_tokens: int
    loss_on: LossOn
    seed: int
    how: fit.How = "best_fit"
    mix: Mixing | None = None


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
    return encode_many([pieces], tokenizer, end_id, loss_on)[0]


def encode_many(
    documents: Iterable[Iterable[Segment]], tokenizer: Tokenizer, end_id: int, loss_on: LossOn
) -> list[tuple[list[int], list[int]]]:
    """Return what `encode_segments` does for each of several documents, tokenised together."""
    cut = [list(stretches(pieces)) for pieces in documents]
    texts = ["".join(piece.text for piece in stretch) for found in cut for stretch in found]
    work = tokenizer.encode_batch_fast if loss_on == "all" else tokenizer.encode_batch  # fast: without offsets
    encoded = iter(zip(work(texts, add_special_tokens=False), texts, strict=True))
    out = []
    for found in cut:
        tokens: list[int] = []
        labels: list[int] = []
        for stretch in found:
            encoding, text = next(encoded)
            ends = [end_id] if stretch[-1].ends else []
            tokens += encoding.ids + ends
            labels += _labels(stretch[-1], text, encoding, loss_on) + ends
        out.append((tokens, labels))
    return out


def _labels(last: Segment, text: str, encoding: Any, loss_on: LossOn) -> list[int]:
    """Return the labels of a stretch without its end token."""
    ids: list[int] = encoding.ids
    if loss_on == "all":
        return ids
    answer_from = len(text) - len(last.text) if last.answer else len(text)
    return [i if at >= answer_from else IGNORED for i, (at, _) in zip(ids, encoding.offsets, strict=True)]


def load_tokenizer(folder: Path) -> tuple[Tokenizer, Specials]:
    """Read a checkpoint's tokenizer and its end and padding tokens.

    Raises CheckpointError where there is none or it names no end token; padding falls back to it.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(folder, "holds no tokenizer.json", "give a checkpoint with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    tokenizer.no_truncation()
    tokenizer.no_padding()
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


def tokenise(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    specials: Specials,
    loss_on: LossOn,
    store: Sink,
    progress: Progress,
) -> list[Group]:
    """Encode documents into a store, which is sealed; returns its groups by their numbers."""
    numbers: dict[Group, int] = {}
    rest, done, tokens = iter(documents), 0, 0
    while chunk := list(islice(rest, AT_ONCE)):
        pieces = [segments(document.turns) for document in chunk]
        for document, (ids, labels) in zip(chunk, encode_many(pieces, tokenizer, specials.end, loss_on), strict=True):
            group = Group(document.source, document.category, document.language)
            store.add(document.id, numbers.setdefault(group, len(numbers)), ids, labels)
            tokens += len(ids)
        done += len(chunk)
        progress.advance(done, done, f"{tokens:,} tokens")
    store.seal()
    return list(numbers)


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    specials: Specials,
    expert_of: Callable[[str], int],
    folder: Path,
    options: Packing,
    progress: Progress,
) -> dict[str, Any]:
    """Pack all documents, in an order drawn by seed, into shards; returns the facts for the manifest."""
    with Store(folder / SCRATCH / "tokens") as store:
        groups = tokenise(documents, tokenizer, specials, options.loss_on, store, progress)
        experts = [expert_of(group.language) for group in groups]
        drawn = draw(options.mix, groups, experts, store.groups, store.lengths, options.seed)
        tokens: dict[str, int] = {}
        for row in drawn.rows:
            if row["packed"]:
                tokens[row["language"]] = tokens.get(row["language"], 0) + row["packed"]
        codes = sorted(tokens)
        places = np.array(
            [
                (codes.index(g.language) if g.language in tokens else PADDING_LANGUAGE, e)
                for g, e in zip(groups, experts, strict=True)
            ],
            dtype=np.int16,
        )
        placed = sum(tokens.values())
        laid = _lay(folder, store, drawn.stream, placed, places, specials, options, progress)
    with suppress(OSError):  # in a run's folder it holds the mark of the step, too
        (folder / SCRATCH).rmdir()
    if laid["tokens"] != placed:
        raise PolyclinicError(folder, f"{placed} tokens in, {laid['tokens']} in packs", "report this")
    expert = dict(zip((group.language for group in groups), experts, strict=True))
    facts = {
        "packs": laid["packs"],
        "pack_tokens": options.pack_tokens,
        "tokens": {code: tokens[code] for code in codes},
        "languages": codes,
        "expert_of": {code: expert[code] for code in codes},
        "vocabulary": vocabulary_digest(tokenizer),
        "specials": specials._asdict(),
        "ordered": drawn.ordered,
        "cut": laid["cut"],
        "padding": laid["packs"] * options.pack_tokens - placed,
        "groups": drawn.rows,
    }
    write_json(folder / META, facts)
    return {name: facts[name] for name in ("packs", "cut", "padding")} | {"tokens": placed}


def _lay(
    folder: Path,
    store: Store,
    stream: NDArray[np.int64],
    placed: int,
    places: NDArray[np.int16],
    specials: Specials,
    options: Packing,
    progress: Progress,
) -> dict[str, Any]:
    """Plan packs of a stream of documents of `placed` tokens, write them; returns how many, and what was cut."""
    tokens = cut = 0
    with ShardWriter(folder, options.pack_tokens, specials.pad, places) as writer:
        for found in fit.planner(options.how)(stream, store.lengths, options.pack_tokens, fit.WINDOW):
            writer.write(found, store)
            tokens += int(found.length.sum())
            cut += int((found.start > 0).sum())
            progress.advance(tokens, placed, f"{writer.packs:,} packs")
    return {"packs": writer.packs, "tokens": tokens, "cut": cut}
