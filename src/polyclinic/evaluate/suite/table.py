"""The table of exams: `data/exams.yaml`, read strictly.

Four kinds: `local` (a file below POLYCLINIC_DATA), `derived` (questions made from such a file), `hub`
(loaded when it is asked for) and `lm-eval` (tasks of lm-eval's own, named here and run by it).
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from polyclinic import strict_yaml
from polyclinic.errors import RecipeError, UnknownLanguageError
from polyclinic.languages import language
from polyclinic.sections import Count, Name, Section

TABLE = "data/exams.yaml"
TASKS = "data/tasks"  # the exams as tasks of lm-eval (taskfiles.py)
Kind = Literal["local", "derived", "hub", "lm-eval"]
HERE: tuple[Kind, ...] = ("local", "derived")  # below POLYCLINIC_DATA
NEEDED = {"local": ("file", "split"), "derived": ("file", "split"), "hub": ("split", "seen"), "lm-eval": ("tasks",)}
LANGUAGE, CONFIG = "{language}", "{config}"
IDENTIFIER = r"^[a-z][a-z0-9_]*$"


class Fields(Section):
    """Where a record holds what; `a.b` is the field b of a, an empty name nothing."""

    question: Name = "question"
    options: Name | list[Name] = "options"  # all in one field, or a field each
    pair: list[Name] = Field(default_factory=list)  # of an option in a list of records: its letter, its text
    fixed: list[Name] = Field(
        default_factory=list
    )  # options that the records do not hold, in the order of their letters
    answer: Name = "answer"
    answer_is: Literal["letter", "text", "from 0", "from 1"] = "letter"
    context: str = ""
    id: str = ""
    group: str = ""  # translations of one question share its value
    picture: str = ""  # where it holds anything, the record needs a picture
    text_only: str = ""  # where it does not hold true, the record needs a picture


class Exam(Section):
    """One exam in all its languages; its questions are those of `split`, its examples come from `shots`.

    `pool` is how many groups of the scored split become examples where a language has no other
    split: always the same, so that n does not depend on how many are shown.
    """

    name: str = Field(pattern=IDENTIFIER)
    title: Name
    kind: Kind
    languages: list[Name] = Field(min_length=1)
    licence: Name
    options: list[Count] = Field(min_length=2, max_length=2)  # fewest and most
    several: bool = False  # questions with several right answers
    domain: Literal["medicine", "biology", "terminology"] = "medicine"
    translated: list[Name] = Field(default_factory=list)  # languages in which the text is a translation
    paper: bool = False  # a benchmark of arXiv 2410.10626
    copy_of: str = ""  # the exam of which this is another copy
    version: Count = 1
    verified: bool = True  # false: nobody has seen these fields in the set itself or in code that reads it
    seen: str = ""  # where its fields and files were read
    note: str = ""

    split: str = ""
    shots: list[Name] = Field(default_factory=list)
    pool: int = Field(0, ge=0)
    file: str = ""
    hub: str = ""
    github: str = ""
    revision: str = "main"
    configs: list[Name] = Field(default_factory=list)
    files: dict[Name, list[Name]] = Field(default_factory=dict)  # of each split, in place of the set's own
    archive: str = ""  # a zip that holds `files`
    format: Literal["json", "csv"] = "json"
    where: dict[Name, list[Name]] = Field(default_factory=dict)  # only records whose field has one of these values
    fields: Fields = Fields()
    tasks: list[Name] = Field(default_factory=list)  # lm-eval's own

    @model_validator(mode="after")
    def _whole(self) -> "Exam":
        """Refuse what its kind cannot do without, or has no use for."""
        needed = {
            "local": ["file", "split"],
            "derived": ["file", "split"],
            "hub": ["split", "seen"],
            "lm-eval": ["tasks"],
        }
        missing = [key for key in needed[self.kind] if not getattr(self, key)]
        if self.kind == "hub" and bool(self.hub) == bool(self.github):
            missing.append("one of hub and github")
        if self.kind != "lm-eval" and not (self.pool or self.shots):
            missing.append("shots or pool")
        if missing:
            raise ValueError(f"{self.kind} needs {', '.join(missing)}")
        if self.options[0] > self.options[1] or not set(self.translated) <= set(self.languages):
            raise ValueError("options are fewest, most; translated are some of languages")
        return self

    @property
    def derived(self) -> bool:
        """Say whether its questions were made from something that is no exam."""
        return self.kind == "derived"

    def lm_eval_tasks(self, code: str) -> list[str]:
        """Return lm-eval's own tasks of a language."""
        return [task.replace(LANGUAGE, code) for task in self.tasks]


@cache
def exams() -> Mapping[str, Exam]:
    """Return every exam by its name, in the order of the table."""
    text = resources.files("polyclinic").joinpath(TABLE).read_text("utf-8")
    return read(strict_yaml.parse(text, TABLE), TABLE)


def tasks_folder() -> Path:
    """Return the folder of the packaged tasks, for `lm_eval --include_path`."""
    return Path(str(resources.files("polyclinic").joinpath(TASKS)))


def read(data: Mapping[str, Any], where: str) -> dict[str, Exam]:
    """Return the exams of a table; raises RecipeError naming the exam that is wrong."""
    if set(data) != {"exams"} or not isinstance(data["exams"], list):
        raise RecipeError(where, "one key 'exams' with a list was expected", "see docs/exams.md")
    out: dict[str, Exam] = {}
    for entry in data["exams"]:
        exam = _exam(entry, where)
        if exam.name in out:
            raise RecipeError(f"{where}: {exam.name}", "stands there twice", "name it otherwise")
        out[exam.name] = exam
    _check_pairs(out, where)
    return out


def _exam(entry: Any, where: str) -> Exam:
    name = entry.get("name") if isinstance(entry, dict) else entry
    try:
        exam = Exam.model_validate(entry)
        for code in exam.languages:
            if language(code).code != code:
                raise RecipeError(f"{where}: {name}", f"{code} is no code of ours", f"write {language(code).code}")
    except ValidationError as err:
        fault = err.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise RecipeError(f"{where}: {name}", f"{place} {fault['msg']}".strip(), "see docs/exams.md") from err
    except UnknownLanguageError as err:
        raise RecipeError(f"{where}: {name}", err.what, err.try_) from err
    return exam


def _check_pairs(found: Mapping[str, Exam], where: str) -> None:
    """Refuse copies of nothing, and an exam that is called as another is in one language."""
    pairs = {f"{exam.name}_{code}" for exam in found.values() for code in exam.languages}
    for exam in found.values():
        if exam.copy_of and exam.copy_of not in found:
            raise RecipeError(f"{where}: {exam.name}", f"there is no exam '{exam.copy_of}'", "correct copy_of")
        if exam.name in pairs:
            raise RecipeError(f"{where}: {exam.name}", "is also an exam and its language", "name it otherwise")
