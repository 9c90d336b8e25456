"""Text as a model should see it: composed characters, no control or direction marks, plain spaces.

Direction marks (Bidi_Control, https://unicode.org/reports/tr9/) can make a dose read backwards on
screen, so they never reach a shard. U+200C and U+200D stay: Persian, Sorani, Hindi and others need
them.
"""

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import replace

import pyarrow as pa

from polyclinic.corpus.step import Outcome, contents, outcome, with_contents
from polyclinic.records import Question

LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
SPACES = re.compile(r"[^\S\n]+")
BREAKS = re.compile(r" ?\n[ \n]*")


def clean(text: str) -> str:
    """Return one text normalised (NFC, https://unicode.org/reports/tr15/)."""
    # Marks go first: without one between them, a letter and its accent are to be composed.
    text = unicodedata.normalize("NFC", CONTROL.sub("", LINE_ENDS.sub("\n", text)))
    return BREAKS.sub("\n", SPACES.sub(" ", text)).strip()


def clean_question(question: Question) -> Question:
    """Return an exam question with all its text normalised."""
    options = tuple(clean(option) for option in question.options)
    return replace(question, question=clean(question.question), options=options, context=clean(question.context))


def normalise(batch: pa.RecordBatch) -> Outcome:
    """Clean every turn; a document with an empty turn is dropped as `empty`."""
    given = contents(batch)
    cleaned = [clean(text) for text in given]
    ends = batch.column("turns").offsets.to_pylist()
    reasons: list[str | None] = []
    counts: Counter[str] = Counter()
    for first, last in itertools.pairwise(ends):
        turns = slice(first - ends[0], last - ends[0])
        counts["changed: normalised"] += cleaned[turns] != given[turns]
        reasons.append(None if all(cleaned[turns]) else "empty")
    return outcome(with_contents(batch, cleaned), reasons, +counts)
