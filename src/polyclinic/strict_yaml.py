"""YAML read the way a careful person reads it: no surprise types, no second meaning, no code.

PyYAML follows YAML 1.1, where `no` is a boolean (Norwegian disappears), `010` is eight, `1e-4` is a
string, a key given twice silently takes the last value and an alias can expand without bound. This
loader follows the YAML 1.2 core schema instead (https://yaml.org/spec/1.2.2/#103-core-schema) and
refuses duplicate keys, aliases, tags and anything over a megabyte.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from polyclinic.errors import PolyclinicError, RecipeError

MAX_BYTES = 1_000_000
# What an escape such as "\0" can name and neither UTF-8 nor a file name can hold.
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars; duplicate keys, aliases and tags are errors."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base declares it so; filled below

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases and explicit tags before anything is built from them."""
        peek: Any = self.peek_event
        event = peek()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"the alias *{event.anchor} is not allowed", problem_mark=mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag} is not allowed", problem_mark=mark)
        if _UNWRITABLE.search(getattr(event, "value", "")):
            raise yaml.MarkedYAMLError(problem="NUL and half characters are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are text and stand there once."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            if not isinstance(key_node, yaml.ScalarNode) or key in seen:
                problem = f"the key '{key}' " + ("stands twice" if key in seen else "is not text")
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
            key_node.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    """Read a YAML 1.2 integer: decimal (leading zeros mean nothing), 0o octal, 0x hexadecimal."""
    text = node.value
    return int(text, 0) if text.lower().startswith(("0o", "0x")) else int(text)


def _construct_float(loader: _CoreLoader, node: yaml.ScalarNode) -> float:
    """Read a float; infinities and not-a-number are refused, no setting has a use for them."""
    value = math.nan if node.value.lower().endswith(("inf", "nan")) else float(node.value)
    if not math.isfinite(value):
        raise yaml.MarkedYAMLError(problem=f"{node.value} is not a finite number", problem_mark=node.start_mark)
    return value


_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def read_text(path: Path, error: type[PolyclinicError] = RecipeError) -> str:
    """Read a small UTF-8 file, or raise `error` with one line on what is wrong with it."""
    if not path.exists():
        raise error(path, "no such file", "check the name")
    if not path.is_file():
        raise error(path, "is a folder, a file was expected", "name the file inside it")
    if path.stat().st_size > MAX_BYTES:
        raise error(path, f"{path.stat().st_size} bytes, the limit is {MAX_BYTES}", "is it a recipe?")
    data = path.read_bytes()
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise error(path, "starts with a byte order mark", "save it as UTF-8 without a mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise error(path, f"byte {err.start} is not UTF-8", "save it as UTF-8") from err
    if not text.strip():
        raise error(path, "the file is empty", "start from one in recipes/")
    return text


def parse(text: str, where: object) -> dict[str, Any]:
    """Parse YAML text to a mapping; raises RecipeError naming the line."""
    try:
        value = yaml.load(text, Loader=_CoreLoader)  # noqa: S506 - a SafeLoader, stricter still
    except yaml.MarkedYAMLError as err:
        line = f"{where}:{err.problem_mark.line + 1}" if err.problem_mark else str(where)
        raise RecipeError(line, err.problem or "not YAML", "see docs/recipe.md for the form") from err
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as err:
        raise RecipeError(where, f"not YAML ({type(err).__name__})", "save it as plain text") from err
    if not isinstance(value, dict):
        raise RecipeError(where, "not a mapping of keys to values", "see docs/recipe.md for the form")
    return value


def load(path: Path) -> dict[str, Any]:
    """Read and parse one YAML file strictly."""
    return parse(read_text(path), path)
