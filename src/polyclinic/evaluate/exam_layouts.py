"""How a question stands on the page: the layouts of data/exam_layouts.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from polyclinic.errors import UsageError
from polyclinic.strict_yaml import parse

FILE = "data/exam_layouts.yaml"


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout; the file says what each value means."""

    lines: tuple[str, ...]
    option: str
    equivalent: bool
    between: str = "\n"
    picked: str = "{letters}"
    joins: str = "\n\n"
    instruction: str = "once"
    native_letters: tuple[str, ...] | None = field(default=None)

    def block(self, values: Mapping[str, str]) -> str:
        """Return the lines of one question, without those that would hold an empty text."""
        kept = [line for line in self.lines if all(values[name] for name in _optional(line))]
        return "\n".join(line.format_map(values) for line in kept)


def _optional(line: str) -> list[str]:
    """Return which texts of a line take the line with them when they are not there."""
    listed = ["options"] if "{lists}" in line else []
    return [name for name in ("context", "options", "answers") if "{" + name + "}" in line] + listed


@cache
def layouts() -> dict[str, Layout]:
    """Return all layouts by name."""
    text = resources.files("polyclinic.data").joinpath("exam_layouts.yaml").read_text("utf-8")
    return {name: _layout(given) for name, given in parse(text, FILE).items()}


def _layout(given: dict[str, object]) -> Layout:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Layout(**values)  # type: ignore[arg-type]


def layout(name: str) -> Layout:
    """Return one layout; raises UsageError with the known names."""
    if name not in layouts():
        raise UsageError("layout", f"unknown layout '{name}'", f"there are {', '.join(layouts())}")
    return layouts()[name]


def equivalent_layouts() -> list[str]:
    """Return the names of the layouts that ask the same, `plain` first."""
    return [name for name, one in layouts().items() if one.equivalent]
