"""What points at a person is hidden, or its document dropped, or the build refused, before anything is written.

Text and every other field of a record are searched. A find in text becomes its class in brackets,
as `[PHONE]`; an id or group with a find becomes a digest, so that records stay apart and
translations together. RE2 looks through a whole batch first: most text has nothing that could be
a find, and is not touched.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from polyclinic.corpus import normalise
from polyclinic.corpus.privacy.personal import find
from polyclinic.corpus.step import Outcome, outcome, with_contents
from polyclinic.corpus_section import PRIVATE, PrivacySection
from polyclinic.errors import DataError
from polyclinic.records import Question

Way = Callable[[str, PrivacySection], tuple[str, list[str]]]
Rows = npt.NDArray[np.int64]
NAMES = ("id", "group")  # what has to stay apart where it is hidden
FIELDS = ("source", "licence", "category", "url")
# Anything that could be a find, alone or after a word: a superset, and cheap. One pattern after the
# other, since all in one have more states than RE2 keeps; ranges written out, since a pattern is
# compiled anew for each batch and Unicode classes cost milliseconds.
ZEROS = "0٠۰०০੦૦௦౦೦൦๐໐༠၀០０"  # of the scripts whose digits are known
DIGIT = f"[{''.join(f'{zero}-{chr(ord(zero) + 9)}' for zero in ZEROS)}]"
LETTER, CAPITAL = "[ء-ۿ一-龥ぁ-ん가-힣ก-ฮ]", "[A-ZА-Я]"
ADDRESS = r"@|＠|://|\.(?:com|me|ru|net)/|[(\[] ?(?:at|AT|arroba) ?[)\]]"
HARDWARE = rf"[0-9A-Fa-f]{{0,4}}:[0-9A-Fa-f]{{0,4}}:[0-9A-Fa-f:]*:|(?:(?:{DIGIT}|[A-Fa-f]){{2}}[:-]){{5}}"
ANY = rf"{DIGIT}|{ADDRESS}|[A-Fa-f]{{2}}[:-][A-Fa-f]{{2}}[:-]"
SUSPECT = (
    rf"{ADDRESS}|[a-z][a-z0-9._]{{3,}}[0-9_]",
    rf"{DIGIT}(?:[ \p{{Pd}}./()＋]{{0,3}}[A-Z]?{DIGIT}){{4}}",  # five digits, however parted
    rf"{DIGIT}[^0-9\n]{{1,24}}{DIGIT}{{4}}",  # 3 March 1985
    rf"{DIGIT}[./年년 \p{{Pd}}]{{1,2}}{DIGIT}{{1,2}}[./月월 \p{{Pd}}]{{1,2}}{DIGIT}",
    HARDWARE,
    # plates, and numbers that begin with letters
    rf"{CAPITAL}{{1,3}}[ -]?{DIGIT}{{2,4}}[ -]?{CAPITAL}{{1,3}}|{CAPITAL}{{1,6}}[ -]?{DIGIT}{{3,5}}"
    rf"|[A-HJ-NPR-Z0-9]{{17}}|{DIGIT}{{2,4}}[ -]?{CAPITAL}{{1,3}}",
    rf"{DIGIT}{{2,4}} ?{LETTER} ?{DIGIT}{{2}}|{LETTER}{{2}}[ -]?{DIGIT}{{3,4}}|{LETTER}[A-Z][0-9A-Z]{{5}}"
    rf"|{DIGIT}{{3}} ?{LETTER} {LETTER}",
)
# Ids are full of numbers: here only what tells itself, and the commonest words.
NAMED = (
    rf"{ADDRESS}|{HARDWARE}|{DIGIT}(?:[ ./()+-]{{0,2}}{DIGIT}){{6}}|[A-Z]{{5,6}}{DIGIT}{{2}}|[A-HJ-NPR-Z0-9]{{17}}"
    r"|(?i:mrn|tel|phone|mobile|passport|dob|birth|born|ssn|nhs|iban|patient|record|chart|hosp|policy|card|account"
    r"|telegram|wechat|whatsapp|instagram|skype|licen|plate)",
)


def suspects(column: pa.Array, patterns: Sequence[str] = SUSPECT) -> list[int]:
    """Return which texts of a column may hold a find."""
    some = np.flatnonzero(_matches(column, ANY))
    if not len(some):
        return []
    column = column.take(pa.array(some))
    likely = np.logical_or.reduce([_matches(column, pattern) for pattern in patterns])
    return [int(at) for at in some[likely]]


def _matches(column: pa.Array, pattern: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return found.astype(np.bool_)


def hide(text: str, rule: PrivacySection) -> tuple[str, list[str]]:
    """Return a text with each find replaced by its class in brackets, and the classes found."""
    wanted = rule.classes or PRIVATE
    spans = [span for span in find(text) if span.kind in wanted]
    pieces, last = [], 0
    for start, end, kind in spans:
        pieces += [text[last:start], f"[{kind}]"]
        last = end
    return "".join((*pieces, text[last:])) if spans else text, [span.kind for span in spans]


def hide_name(text: str, rule: PrivacySection) -> tuple[str, list[str]]:
    """Return a digest for an id that holds a find, the id itself for one that does not."""
    _, kinds = hide(text, rule)
    return (f"{kinds[0].lower()}-{hashlib.sha256(text.encode()).hexdigest()[:16]}" if kinds else text), kinds


def privacy(batch: pa.RecordBatch, rule: PrivacySection, file: str) -> Outcome:
    """Redact a batch, or drop the rows with a find; raises DataError in mode `refuse`, without the text."""
    reasons: list[str | None] = [None] * batch.num_rows
    if rule.mode == "off":
        return outcome(batch, reasons)
    found, hidden = _search(batch, rule)
    if found and rule.mode == "refuse":
        row = min(found)
        identity = hide_name(batch.column("id")[row].as_py(), rule)[0]
        raise refusal(f"{file}, record {identity}", found[row])
    counts: Counter[str] = Counter()
    for row, kinds in found.items():
        if rule.mode == "drop":
            reasons[row] = f"privacy: {min(kinds)}"
        else:
            counts.update(f"private: {kind}" for kind in kinds)
            counts["changed: privacy"] += 1
    return outcome(batch if rule.mode == "drop" else hidden, reasons, counts)


def refusal(where: str, kinds: Sequence[str]) -> DataError:
    """Return the error that names a record and what it holds, never the text."""
    return DataError(
        where, f"holds {', '.join(sorted(set(kinds)))}", "correct the record or set corpus.privacy.mode: redact"
    )


def _search(batch: pa.RecordBatch, rule: PrivacySection) -> tuple[dict[int, list[str]], pa.RecordBatch]:
    """Return the classes found by row, and the batch with all of them hidden."""
    found: dict[int, list[str]] = {}
    turns = batch.column("turns")
    pieces = turns.flatten().field("content")
    rows = np.repeat(np.arange(batch.num_rows), np.diff(turns.offsets.to_numpy()))
    changed, hidden = _column(pieces, rows, hide, rule, found)
    if changed:
        batch = with_contents(batch, hidden)
    for name in (*NAMES, *FIELDS):
        column, way = batch.column(name), hide_name if name in NAMES else hide
        changed, hidden = _column(column, np.arange(batch.num_rows), way, rule, found)
        if changed:
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(name), hidden)
    return found, batch


def _column(
    column: pa.Array, rows: Rows, way: Way, rule: PrivacySection, found: dict[int, list[str]]
) -> tuple[bool, pa.Array]:
    """Hide what is in one column; adds the classes to `found` by row."""
    new: dict[int, str] = {}
    for at in suspects(column, NAMED if way is hide_name else SUSPECT):
        text, kinds = way(column[at].as_py(), rule)
        if kinds:
            new[at] = text
            found.setdefault(int(rows[at]), []).extend(kinds)
    if not new:
        return False, column
    mask = np.zeros(len(column), dtype=np.bool_)
    mask[list(new)] = True
    return True, pc.replace_with_mask(column, pa.array(mask), pa.array([new[at] for at in sorted(new)], pa.string()))


def example(row: Sequence[str], rule: PrivacySection) -> tuple[str, ...]:
    """Return a dropped row (id, language, source, reason, text) with all finds hidden, whatever step dropped it."""
    identity, language, source, reason, text = row
    if rule.mode == "off":
        return tuple(row)
    return (
        hide_name(identity, rule)[0],
        language,
        hide(source, rule)[0],
        reason,
        hide(normalise.clean(text), rule)[0],
    )


def question(item: Question, rule: PrivacySection, file: str, counts: Counter[str]) -> list[Question]:
    """Return an exam question with finds hidden, nothing where it is dropped; counts what was found."""
    if rule.mode == "off":
        return [item]
    kinds: list[str] = []

    def covered(text: str, way: Way = hide) -> str:
        new, more = way(text, rule)
        kinds.extend(more)
        return new

    new = replace(
        item,
        id=covered(item.id, hide_name),
        group=covered(item.group, hide_name),
        source=covered(item.source, hide_name),  # part of file names
        licence=covered(item.licence),
        question=covered(item.question),
        options=tuple(map(covered, item.options)),
        context=covered(item.context),
    )
    if not kinds:
        return [item]
    if rule.mode == "refuse":
        raise refusal(f"{file}, question {new.id}", kinds)
    counts.update(f"questions, private: {kind}" for kind in kinds)
    return [] if rule.mode == "drop" else [new]
