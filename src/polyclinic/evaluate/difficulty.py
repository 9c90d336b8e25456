"""How hard each document is for a model: perplexity, and what a question tells about its answer (IFD).

IFD is ppl(R | I) / ppl(R), both over the tokens of the answers R (arXiv 2308.12032): near 1 the
question I does not help the model. R alone stands behind the template's head of an answer, so
that all of its tokens are scored both times. With a second model the gap of the two is what is
hard for the first and easier for the second, in standard deviations of a language, since token
counts make perplexities of different languages incomparable.
"""

import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from polyclinic.moe.checkpoint import load_model
from polyclinic.moe.forward import token_losses
from polyclinic.progress import Progress
from polyclinic.prompts import segments, stretches
from polyclinic.records import Document, Turn
from polyclinic.runs import write_bytes

MAX_TOKENS = 1024  # of one document; what lies behind is not scored
MIN_ANSWER = 5  # tokens of answers below which there is no IFD
AT_ONCE = 256  # documents whose forwards are sorted by length

COLUMNS = pa.schema(
    [
        ("source", pa.string()),
        ("language", pa.string()),
        ("id", pa.string()),
        ("tokens", pa.int32()),  # scored
        ("perplexity", pa.float32()),  # of the answers, or of a text after its first token
        ("ifd", pa.float32()),  # null of plain text and short answers
        ("gap", pa.float32()),  # null without a second model, and where nothing can be compared
    ]
)


class Scored(NamedTuple):
    """Tokens of a text, and which of them count; the first never does."""

    ids: list[int]
    counts: list[bool]


class Figures(NamedTuple):
    """What a model says of a document; losses are means in nats per token, NaN of nothing."""

    tokens: int
    loss: float
    loss_alone: float

    def hardness(self) -> float:
        """Return IFD of a dialogue and the loss of a plain text, NaN where there are too few tokens."""
        if self.tokens < MIN_ANSWER:
            return math.nan
        return self.loss if math.isnan(self.loss_alone) else self.ifd()

    def ifd(self) -> float:
        """Return ppl(R | I) / ppl(R), NaN of plain text and short answers."""
        return math.exp(self.loss - self.loss_alone) if self.tokens >= MIN_ANSWER else math.nan


class Reader:
    """Turns documents into tokens as the model was trained to see them, end tokens between turns."""

    def __init__(self, checkpoint: Path, end: int | None) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
        self._end = [] if end is None else [end]

    def read(self, turns: Sequence[Turn]) -> Scored:
        """Return the tokens of turns; those of answers and of plain text count."""
        ids: list[int] = []
        counts: list[bool] = []
        for stretch in stretches(segments(turns)):
            encoded = self._tokenizer.encode("".join(piece.text for piece in stretch), add_special_tokens=False)
            spans, place = [], 0
            for piece in stretch:
                spans += [(place, place + len(piece.text))] * piece.answer
                place += len(piece.text)
            ids += encoded.ids
            counts += [any(end > low and begin < high for low, high in spans) for begin, end in encoded.offsets]
            if stretch[-1].ends:
                ids, counts = ids + self._end, counts + [False] * len(self._end)
        return Scored(ids[:MAX_TOKENS], counts[:MAX_TOKENS])


def write_difficulty(
    checkpoint: Path, against: Path | None, documents: Callable[[], Iterable[Document]], path: Path, progress: Progress
) -> int:
    """Write a Parquet file with a row for each document; returns how many there are."""
    names = [(d.source, d.language, d.id) for d in documents()]
    figures = list(difficulty(checkpoint, documents(), len(names), progress))
    gap = np.full(len(names), np.nan)
    if against is not None:
        others = difficulty(against, documents(), len(names), progress)
        gap = gaps([code for _, code, _ in names], figures, list(others))
    columns = [*zip(*names, strict=True)] or [(), (), ()]
    values = [
        *(list(column) for column in columns),
        [f.tokens for f in figures],
        [_perplexity(f.loss) for f in figures],
        [f.ifd() for f in figures],
        gap.tolist(),
    ]
    arrays = [pa.array(column, kind, from_pandas=True) for column, kind in zip(values, COLUMNS.types, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=COLUMNS), sink, compression="zstd")
    write_bytes(path, sink.getvalue())
    return len(names)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 80.0)) if not math.isnan(loss) else math.nan  # 80: within float32


def difficulty(checkpoint: Path, documents: Iterable[Document], total: int, progress: Progress) -> Iterator[Figures]:
    """Yield what a model says of each document, in order."""
    model = load_model(checkpoint).eval()
    end = model.config.eos_token_id
    reader = Reader(checkpoint, end[0] if isinstance(end, list) else end)
    done = 0
    for group in _grouped(documents):
        yield from _figures(model, reader, group)
        done += len(group)
        progress.advance(done, total, checkpoint.name)


def _grouped(documents: Iterable[Document]) -> Iterator[tuple[Document, ...]]:
    iterator = iter(documents)
    while group := tuple(itertools.islice(iterator, AT_ONCE)):
        yield group


def first(rows: Sequence[Scored], tokens: int) -> list[Scored]:
    """Return rows of which only so many tokens count as were left of the whole document."""
    out = []
    for row in rows:
        places = [place for place, counts in enumerate(row.counts) if counts][:tokens]
        tokens -= len(places)
        kept = set(places)
        out.append(Scored(row.ids, [place in kept for place in range(len(row.ids))]))
    return out


def _figures(model: PreTrainedModel, reader: Reader, documents: Sequence[Document]) -> list[Figures]:
    """Score documents, and the answers of each on their own."""
    rows: list[Scored] = []
    owners: list[tuple[int, bool]] = []
    for number, document in enumerate(documents):
        whole = reader.read(document.turns)
        answers = [reader.read([turn]) for turn in document.turns if turn.role == "assistant"]
        rows += [whole, *first(answers, sum(whole.counts))]
        owners += [(number, place > 0) for place in range(1 + len(answers))]
    sums = np.zeros((len(documents), 2, 2))  # in the document or alone; nats, tokens
    for (number, alone), scored in zip(owners, losses(model, rows), strict=True):
        sums[number, int(alone)] += scored
    out = []
    for (nats, tokens), (nats_alone, tokens_alone) in sums.tolist():
        loss = nats / tokens if tokens else math.nan
        out.append(Figures(int(tokens), loss, nats_alone / tokens_alone if tokens_alone else math.nan))
    return out


def losses(model: PreTrainedModel, rows: Sequence[Scored]) -> list[tuple[float, int]]:
    """Return nats and number of the tokens that count, for each row."""
    out = [(0.0, 0)] * len(rows)
    for index, losses_S in token_losses(model, [row.ids for row in rows]):
        found = losses_S[torch.tensor(rows[index].counts[1:], dtype=torch.bool)]
        out[index] = (found.double().sum().item(), len(found))
    return out


def gaps(languages: Sequence[str], ours: Sequence[Figures], others: Sequence[Figures]) -> np.ndarray:
    """Return how much harder each document is for the first model, standardised within language and kind.

    NaN where a language has fewer than two documents of a kind that both can be scored.
    """
    pairs = list(zip(ours, others, strict=True))
    raw = np.array([a.hardness() - b.hardness() for a, b in pairs])
    kinds = np.array([f"{code} {math.isnan(a.loss_alone)}" for code, a in zip(languages, ours, strict=True)])
    out = np.full(len(raw), np.nan)
    for kind in np.unique(kinds):
        rows = np.flatnonzero((kinds == kind) & np.isfinite(raw))
        if len(rows) > 1:
            spread = raw[rows].std()
            out[rows] = (raw[rows] - raw[rows].mean()) / (spread or 1.0)
    return out
