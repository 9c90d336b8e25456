"""Text as a model should see it: composed characters, no control or direction marks, plain spaces.

Direction marks (Bidi_Control, https://unicode.org/reports/tr9/) can make a dose read backwards on
screen, so they never reach a shard. What is invisible goes without a trace: scripts without spaces
between words (Thai, Lao, Khmer, Chinese, Japanese) get none where a zero width space stood. U+200C
and U+200D stay: Persian, Sorani, Hindi and others need them. Names of special tokens become plain
text last, when nothing invisible can hide one.
"""

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from functools import cache
from importlib import resources

import pyarrow as pa
import yaml

from polyclinic.corpus.step import Outcome, contents, outcome, with_contents
from polyclinic.records import Question

LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control, bidi and other invisible characters: soft hyphen, word joiners, fillers of markup, tags.
INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffc\U000e0000-\U000e007f"
)
CONTROL = re.compile(f"[{INVISIBLE}]")
SPACES = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")  # runs that are not one plain space
BREAKS = re.compile(r" ?\n[ \n]*")
# A C1 control is a character of Windows-1252 that was read as Latin-1 (U+0085 may be a line end).
LATIN_1 = re.compile("[\x80-\x84\x86-\x9f]")


def _windows(match: re.Match[str]) -> str:
    """Return the quote, dash or sign that a C1 control was meant to be; nothing for the five that are none."""
    return match.group().encode("latin-1").decode("cp1252", "ignore")


def clean(text: str) -> str:
    """Return one text normalised (NFC, https://unicode.org/reports/tr15/)."""
    if not _is_even(text):
        text = CONTROL.sub("", LATIN_1.sub(_windows, LINE_ENDS.sub("\n", text)))
        # Marks go first: without one between them, a letter and its accent are to be composed.
        return BREAKS.sub("\n", SPACES.sub(" ", unicodedata.normalize("NFC", text))).strip()
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def _is_even(text: str) -> bool:
    """Say whether a text surely has nothing to change but its composition: the quick answer for most."""
    # What is not printable is a control, an invisible character, or a space other than U+0020.
    if "  " in text or "\n\n" in text or " \n" in text or "\n " in text:
        return False
    return text.replace("\n", "").isprintable()


@cache
def _special() -> tuple[str, re.Pattern[str]]:
    """Return the characters that names of special tokens begin with, and what finds the names."""
    given = yaml.safe_load(resources.files("polyclinic.data").joinpath("special_tokens.yaml").read_text("utf-8"))
    return given.pop("openers"), re.compile("|".join(_pattern(name) for names in given.values() for name in names))


def _pattern(name: str) -> str:
    found = re.escape(name).replace(r"\*", r"[^\s<>|｜]{1,40}")
    return found.replace(r"\#", r"\d").replace(r"\d\d", "[0-9A-F]{2}").replace(r"\d", r"\d+")


def plain(text: str) -> str:
    """Return a text in which the names of special tokens are plain text: `<|end|>` becomes `< |end| >`.

    A space inside the outer marks: no vocabulary has a token of that name, and a person reads on.
    """
    openers, names = _special()
    if not any(opener in text for opener in openers):
        return text
    return names.sub(_opened, text)


def _opened(match: re.Match[str]) -> str:
    name = match.group()
    return f"{name[0]} {name[1:-1]} {name[-1]}"


def clean_question(question: Question) -> Question:
    """Return an exam question with all its text normalised and plain."""
    options = tuple(plain(clean(option)) for option in question.options)
    asked, context = plain(clean(question.question)), plain(clean(question.context))
    return replace(question, question=asked, options=options, context=context)


def normalise(batch: pa.RecordBatch) -> Outcome:
    """Clean every turn and make it plain; a document with an empty turn is dropped as `empty`."""
    given = contents(batch)
    cleaned = [clean(text) for text in given]
    done = [plain(text) for text in cleaned]
    ends = batch.column("turns").offsets.to_pylist()
    turns = [slice(first - ends[0], last - ends[0]) for first, last in itertools.pairwise(ends)]
    counts: Counter[str] = Counter()
    counts["changed: normalised"] = sum(cleaned[row] != given[row] for row in turns)
    counts["changed: special tokens"] = sum(done[row] != cleaned[row] for row in turns)
    reasons = [None if all(done[row]) else "empty" for row in turns]
    return outcome(batch if done == given else with_contents(batch, done), reasons, +counts)
