"""The words of an exam in each language: what a prompt is written with and an answer is read by.

One file a language, `data/words/CODE.yaml`, so that a person who knows a language corrects one short
page. They were written by a machine (data/SOURCES.md).
"""

from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from polyclinic.errors import DataError
from polyclinic.strict_yaml import parse

ASCII_LETTERS = tuple("ABCDEFGHIJ")
_KEYS = {"and_": "and", "or_": "or"}  # words of Python
_NOT_NEEDED = "paraphrases"


@dataclass(frozen=True, slots=True)
class Literals:
    """One language's words; of several words for one thing the first is used, all are understood."""

    question: str
    options: str  # heading of a list of options
    answer: str
    letters: tuple[str, ...]  # of the options, in the order exams use
    yes: tuple[str, ...]
    no: tuple[str, ...]
    maybe: tuple[str, ...]
    and_: tuple[str, ...]
    or_: tuple[str, ...]
    option: tuple[str, ...]  # what one option is called before its letter
    introduced_by: tuple[str, ...]  # what an answer begins with
    states: str  # a sentence that gives the right answer, with {answer}
    instruction: str
    instruction_several: str  # the same where several options may be right
    chain: str  # asks for reasoning, with {answer} for the answer word
    paraphrases: tuple[str, ...] = ()  # of the instruction


def words_file(code: str) -> str:
    """Return the file of a language, as an error names it."""
    return f"data/words/{code}.yaml"


@cache
def literals(code: str) -> Literals:
    """Return a language's words; raises DataError naming the file, and the key that is missing there."""
    path = resources.files("polyclinic.data").joinpath(f"words/{code}.yaml")
    if not code.isalnum() or not path.is_file():
        what = f"no exam words for language '{code}'"
        raise DataError(words_file(code), what, "add the file: copy data/words/en.yaml and translate it")
    return from_text(code, path.read_text("utf-8"))


def from_text(code: str, text: str) -> Literals:
    """Build a language's words from its YAML; raises DataError where one is missing, of the wrong kind or unknown."""
    given = parse(text, words_file(code))
    values: dict[str, Any] = {}
    for field in fields(Literals):
        key = _KEYS.get(field.name, field.name)
        value = given.pop(key, () if key == _NOT_NEEDED else None)
        values[field.name] = tuple(value) if isinstance(value, list) else value
        if not _is_whole(values[field.name], field.type is str, key):
            what = f"language '{code}' has no literal '{key}'"
            raise DataError(words_file(code), what, f"write {key} as in data/words/en.yaml")
    if given:
        raise DataError(words_file(code), f"language '{code}': unknown literal '{min(given)}'", "check its spelling")
    return Literals(**values)


def _is_whole(value: object, one: bool, key: str) -> bool:
    """Say whether a literal is there: a text, or a list of texts that holds at least one."""
    if one:
        return isinstance(value, str) and bool(value.strip())
    if not isinstance(value, tuple) or not (value or key == _NOT_NEEDED):
        return False
    return all(isinstance(one, str) and one.strip() for one in value)


def languages_with_words() -> list[str]:
    """Return the codes of all languages that have a file."""
    folder = resources.files("polyclinic.data").joinpath("words")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
