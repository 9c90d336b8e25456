"""The grammar of the command line: argparse with our errors, strict numbers and no abbreviations."""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from polyclinic.errors import UsageError
from polyclinic.languages import language

_OPTION = re.compile(r"--?[A-Za-z]\S*")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError with the nearest known word."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UsageError(self.prog, message, f"see {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse everything or raise UsageError; unknown options name the nearest known one."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words:
            try:
                word.encode()
            except UnicodeEncodeError as err:
                raise UsageError(self.prog, "an argument is not UTF-8", "write it as UTF-8") from err
        found, unknown = self.parse_known_args(words, namespace)
        if unknown:
            getattr(found, "parser", self)._refuse(unknown[0])
        return found

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Name a misspelt option before argparse names the required one it leaves missing."""
        if self._subparsers is None:
            for word in takewhile(lambda w: w != "--", args or ()):
                name = word.partition("=")[0]
                if _OPTION.fullmatch(name) and name not in self._option_string_actions:
                    self._refuse(word)
        return super().parse_known_args(args, namespace)

    def _match_arguments_partial(self, actions: Any, arg_strings_pattern: str) -> list[int]:
        """Leave a last argument that may be absent to what stands behind the options, as Python 3.13 does."""
        counts: list[int] = super()._match_arguments_partial(actions, arg_strings_pattern)
        if arg_strings_pattern[sum(counts) :].startswith("O"):
            while counts and not counts[-1]:
                counts.pop()
        return counts

    def _refuse(self, word: str) -> NoReturn:
        known = [o for o in self._option_string_actions if o.startswith("--")]
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        raise UsageError(self.prog, f"unknown argument '{word}'", hint)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest choice where a value is none of them."""
        if action.choices is not None and value not in action.choices:
            known = [str(c) for c in action.choices]
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(known)}"
            raise UsageError(self.prog, f"unknown {action.metavar or action.dest} '{value}'", hint)


class Once(argparse.Action):
    """Store a value; the same option given again is an error, not a silent change of mind."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Store, or raise UsageError if it was stored before."""
        given: set[str] = getattr(namespace, "given", set())
        if self.dest in given:
            raise UsageError(parser.prog, f"{option_string} stands twice", "give it once")
        namespace.given = {*given, self.dest}
        setattr(namespace, self.dest, values)


def folder(text: str) -> Path:
    """Read a folder's name; an empty one, from an unset shell variable, is not the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not the name of a folder")
    return Path(text)


def positive(text: str) -> int:
    """Read a count of at least one."""
    value = int(text) if text.isascii() and text.strip().lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return value


def rate(text: str) -> float:
    """Read a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number above 0")
    return value


def share(text: str) -> float:
    """Read a number above 0, up to 1."""
    value = rate(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"'{text}' is more than 1")
    return value


def whole(text: str) -> int:
    """Read a whole number of at least 0."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 0")
    return int(text)


def seed(text: str) -> int:
    """Read a seed: a whole number below 2**31, as a recipe takes it."""
    value = whole(text)
    if value >= 1 << 31:
        raise argparse.ArgumentTypeError(f"'{text}' is not below 2147483648")
    return value


def word(text: str) -> str:
    """Read a name; an empty one, from an unset shell variable, names nothing."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no name")
    return text


def indices(text: str) -> list[int]:
    """Read whole numbers with commas between."""
    return [whole(part) for part in text.split(",")]


def counts(text: str) -> list[int]:
    """Read counts with commas between, each once."""
    found = [positive(part) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"'{text}' names a number twice")
    return found


def codes(text: str) -> list[str]:
    """Read language codes with commas between, as the table writes them; raises UnknownLanguageError."""
    return [language(part, where="--languages").code for part in text.split(",")]
