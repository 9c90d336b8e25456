"""What a built corpus kept and dropped of one language, with examples, as a terminal shows it."""

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.cells import cell_len

from polyclinic.corpus.clean import DROPS_FILE
from polyclinic.corpus.normalise import clean
from polyclinic.corpus.step import texts
from polyclinic.corpus.tables import ROWS_PER_BATCH
from polyclinic.errors import DataError
from polyclinic.languages import language
from polyclinic.runs import read_json

EXAMPLES = 3  # shown of what was kept, and of each reason
BEGINNING = 300  # characters of each
ISOLATE, END = "\u2068", "\u2069"  # first-strong isolate: text from the right does not pull its line along
JOINER = "\u200d"


def inspect(corpus: Path, code: str) -> dict[str, Any]:
    """Return counts and examples of a language; raises DataError where the corpus has no text in it.

    Kept documents come in the order of the corpus, reasons by how many rows they cost.
    """
    row = read_json(corpus / "card.json")["languages"].get(code, {})
    splits = {name: row[name] for name in ("train", "validation", "held_out") if row.get(name)}
    reasons = read_json(corpus / DROPS_FILE).get(code, {})
    if not splits and not reasons:
        what = f"holds no text in {language(code).name} ({code})"
        raise DataError(corpus, what, "polyclinic corpus inspect without --language shows what it holds")
    examples: dict[str, list[dict[str, str]]] = {reason: [] for reason in reasons}
    for batch in _batches(corpus / "dropped", code):
        for dropped in batch.to_pylist():
            if len(found := examples.setdefault(dropped["reason"], [])) < EXAMPLES:
                found.append({"id": dropped["id"], "source": dropped["source"], "text": dropped["excerpt"]})
    order = sorted(examples, key=lambda reason: (-reasons.get(reason, 0), reason))
    dropped = [{"reason": r, "documents": reasons.get(r, 0), "examples": examples[r]} for r in order]
    return {"language": code, "kept": {"splits": splits, "examples": _kept(corpus, code)}, "dropped": dropped}


def _kept(corpus: Path, code: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for batch in _batches(corpus / "documents", code):
        some = batch.slice(0, EXAMPLES - len(found))
        columns = [some.column(name).to_pylist() for name in ("id", "source", "split")]
        for identity, source, split, text in zip(*columns, texts(some), strict=True):
            found.append({"id": identity, "source": source, "split": split, "text": text[:BEGINNING]})
        if len(found) == EXAMPLES:
            break
    return found


def _batches(folder: Path, code: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a language, file by file, leaving out row groups that hold none of it."""
    for path in sorted(folder.glob("*.parquet")):
        file = pq.ParquetFile(path)
        column = file.schema_arrow.get_field_index("language")
        groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i), column, code)]
        for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=groups):
            found = batch.filter(pc.equal(batch.column("language"), code))
            if found.num_rows:
                yield found


def _may_hold(group: Any, column: int, code: str) -> bool:
    statistics = group.column(column).statistics
    return statistics is None or not statistics.has_min_max or statistics.min <= code <= statistics.max


def lines(found: Mapping[str, Any], width: int) -> list[str]:
    """Return what `inspect` found as lines of at most `width` columns."""
    entry, kept = language(found["language"]), found["kept"]
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in kept["splits"].items()) or "nothing"
    out = [f"{entry.name} ({entry.code})", f"kept     {counts}"]
    for example in kept["examples"]:
        out += _example(example, f"  {example['split']}", width)
    total = sum(reason["documents"] for reason in found["dropped"])
    out += ["", f"dropped  {total:,}" if total else "dropped  nothing"]
    for reason in found["dropped"]:
        out.append(f"{reason['documents']:>7,}  {reason['reason']}")
        for example in reason["examples"]:
            out += _example(example, "", width)
    return out


def _example(example: Mapping[str, str], note: str, width: int) -> list[str]:
    """Return where a document is from, and the beginning of its text."""
    where = _isolated(f"{example['source']}  {example['id']}", width - 9 - len(note))
    return [f"{'':<9}{where}{note}", f"{'':<11}{_isolated(example['text'], width - 11)}"]


def _isolated(text: str, width: int) -> str:
    """Return text on one line of at most `width` columns, without what would move a cursor or turn the line."""
    plain = fitted(clean(text).replace("\n", " "), width)
    return plain if plain.isascii() else f"{ISOLATE}{plain}{END}"


def fitted(text: str, width: int) -> str:
    """Cut text to so many columns, between characters as people see them; what is cut ends in an ellipsis."""
    if cell_len(text) <= width:
        return text
    kept, used = "", 1
    for character in _characters(text):
        used += cell_len(character)
        if used > width:
            break
        kept += character
    return f"{kept.rstrip()}…"


def _characters(text: str) -> Iterator[str]:
    """Yield each letter with its marks and with what is joined to it."""
    held = ""
    for letter in text:
        if held and not (unicodedata.category(letter).startswith("M") or JOINER in (letter, held[-1])):
            yield held
            held = ""
        held += letter
    if held:
        yield held
