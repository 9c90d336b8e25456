"""One raw record of an exam into a question, by the fields that the table names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polyclinic.errors import DataError
from polyclinic.evaluate.suite.table import LANGUAGE, Exam, Fields
from polyclinic.records import Question

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CORRECT = "correct or remove the record"
# Options in one text, each from its letter to the next line that begins with one: "(A) ...".
LISTED = re.compile(r"^\(([A-Z])\)\s*(.*?)(?=^\([A-Z]\)|\Z)", re.MULTILINE | re.DOTALL)
PICTURE, NO_OPTIONS, NO_ANSWER = "needs a picture", "no options to choose from", "no answer"


class Record(NamedTuple):
    """A question, the splits that hold it too, and whether another exam does."""

    question: Question
    also_in: tuple[str, ...] = ()
    elsewhere: bool = False


class Place(NamedTuple):
    """Where a record stands: `where` for a message, `id` unless the record has one, language and split."""

    where: str
    id: str
    language: str
    split: str


def wanted(row: Mapping[str, Any], exam: Exam, code: str) -> bool:
    """Say whether a record is one of the exam in a language."""
    return all(
        str(value(row, field)) in [one.replace(LANGUAGE, code) for one in values]
        for field, values in exam.where.items()
    )


def to_record(row: Mapping[str, Any], exam: Exam, place: Place) -> Record | str:
    """Return the question of a record, or why it is left out; raises DataError naming its place."""
    fields = exam.fields
    if _true(value(row, fields.picture)) or (fields.text_only and not _true(value(row, fields.text_only))):
        return PICTURE
    options = _options(row, fields, place)
    answer = value(row, fields.answer)
    if len(options) < 2:  # noqa: PLR2004 - nothing to choose from
        return NO_OPTIONS
    if answer is None or answer in ("", []):
        return NO_ANSWER
    identity = str(value(row, fields.id) or "") or place.id
    group = value(row, fields.group)
    question = Question(
        id=identity if ":" in identity else f"{exam.name}:{identity}",
        language=place.language,
        source=exam.name,
        licence=str(row.get("licence") or exam.licence),
        group=_group(exam, group) or (identity if ":" in identity else f"{exam.name}:{identity}"),
        split=place.split,
        question=_text(value(row, fields.question), "question", place),
        options=tuple(options.values()),
        answers=_picks(answer, list(options), list(options.values()), exam, place),
        context=_context(value(row, fields.context)),
    )
    also = row.get("also_in") or ()
    return Record(question, tuple(map(str, also)), bool(row.get("overlaps_with")))


def _group(exam: Exam, group: Any) -> str:
    """Return what a record shares with its translations; a group with a colon is shared between exams, too."""
    if group is None or group == "":
        return ""
    return str(group) if ":" in str(group) else f"{exam.name}:{group}"


def value(row: Mapping[str, Any], path: str) -> Any:
    """Return what a path of names leads to, or None."""
    found: Any = row if path else None
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _true(given: Any) -> bool:
    return given not in (None, "", 0, False, [])


def _text(given: Any, what: str, place: Place) -> str:
    text = str(given).strip() if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
    if not text:
        raise DataError(place.where, f"{what} is missing or no text", CORRECT)
    return text


def _context(given: Any) -> str:
    """Return a passage; one that is kept in pieces is joined by lines."""
    return "\n".join(map(str, given)) if isinstance(given, list) else str(given or "").strip()


def _options(row: Mapping[str, Any], fields: Fields, place: Place) -> dict[str, str]:
    """Return the options by letter, without blank ones: some sets pad with them."""
    if fields.fixed:
        given: Any = list(fields.fixed)
    elif isinstance(fields.options, list):
        given = [value(row, name) for name in fields.options]
    else:
        given = value(row, fields.options)
    if isinstance(given, str):
        given = dict(LISTED.findall(given))
    if isinstance(given, list) and fields.pair:
        key, text = fields.pair
        given = {str(one[key]): one[text] for one in given if isinstance(one, Mapping) and {key, text} <= set(one)}
    if isinstance(given, list) and len(given) <= len(LETTERS):
        given = dict(zip(LETTERS, given, strict=False))
    if not isinstance(given, Mapping):
        raise DataError(place.where, "options are no list or object of options", CORRECT)
    return {str(k): str(v).strip() for k, v in given.items() if v is not None and str(v).strip()}


def _picks(answer: Any, letters: Sequence[str], texts: Sequence[str], exam: Exam, place: Place) -> tuple[int, ...]:
    """Return the positions of the right options; raises DataError where one is none of them."""
    form = exam.fields.answer_is
    given = [str(one).strip() for one in (answer if isinstance(answer, list) else [answer])]
    if form == "letter":
        folded = [letter.upper() for letter in letters]
        given = [one.strip("().（） ").upper() for one in given]
        if len(given) == 1 and given[0] not in folded:  # "BCE", "B, C" or "(B)(C)" of several right ones
            given = re.findall(r"\w", given[0]) or given
        found = [folded.index(one) if one in folded else -1 for one in given]
    elif form == "text":
        folded = [text.casefold() for text in texts]
        found = [folded.index(one.casefold()) if one.casefold() in folded else -1 for one in given]
    else:
        first = int(form.removeprefix("from "))
        found = [int(one) - first if re.fullmatch(r"\d+", one) else -1 for one in given]
    if any(not 0 <= one < len(letters) for one in found):
        raise DataError(place.where, f"the answer {answer!r} is none of {len(letters)} options", CORRECT)
    if len(set(found)) > 1 and not exam.several:
        raise DataError(place.where, "several right answers where the exam has one", CORRECT)
    return tuple(dict.fromkeys(found))
