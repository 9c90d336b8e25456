"""Prompt files: one for a language, or the default that names the languages it serves.

`rewrite/CODE.yaml` has `question`, `answer` and `mentions`; `{passage}`, `{question}` and
`{language}` are filled in. A folder of the recipe comes before the package's.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from polyclinic.errors import RecipeError
from polyclinic.languages import language
from polyclinic.strict_yaml import parse

DEFAULT = "default.yaml"


class Prompts(NamedTuple):
    """The prompts of a language, and the phrases that give away that there was a passage."""

    question: str
    answer: str
    mentions: tuple[str, ...]


def _packaged(kind: str) -> Traversable:
    return resources.files("polyclinic.data").joinpath(f"prompts/{kind}")


@cache
def rewriting(code: str, folder: str | None = None) -> Prompts:
    """Return the prompts of a language; raises RecipeError that names the file where there is none."""
    places: list[Traversable] = [*([Path(folder)] if folder else []), _packaged("rewrite")]
    for place in places:
        own, default = place / f"{code}.yaml", place / DEFAULT
        if own.is_file():
            return _read(own, code)
        if default.is_file() and code in parse(default.read_text("utf-8"), default).get("languages", ()):
            return _read(default, code)
    raise RecipeError(places[0] / f"{code}.yaml", f"no prompts for {language(code).name}", "write this file")


def _read(file: Traversable, code: str) -> Prompts:
    found = parse(file.read_text("utf-8"), file)
    for name, wanted in (("question", {"passage"}), ("answer", {"passage", "question"})):
        given = {field for _, field, _, _ in Formatter().parse(str(found.get(name, ""))) if field is not None}
        if not wanted <= given <= wanted | {"language"}:
            raise RecipeError(file, f"`{name}` must hold {', '.join(sorted(wanted))}", "see the package's prompts")
    mentions = tuple(str(phrase) for phrase in found.get("mentions", ()))
    return Prompts(str(found["question"]), str(found["answer"]), mentions)


@cache
def translating() -> Mapping[str, Any]:
    """Return the prompts of translation by name."""
    file = _packaged("translate") / DEFAULT
    return parse(file.read_text("utf-8"), file)


def named(code: str) -> str:
    """Return a language as a prompt names it, with its own name where that differs."""
    found = language(code)
    return found.name if found.name == found.native_name else f"{found.name} ({found.native_name})"
