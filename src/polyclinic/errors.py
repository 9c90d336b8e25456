"""One tree of errors, each with the exit code a shell sees and a message that says what to try.

A message has three parts: WHERE it happened, WHAT was given against what was expected, and what
to TRY. The command line prints them as one line, `error: WHERE: WHAT; TRY`, and exits with
`exit_code`. Exit codes are those of the design: 0 done, 1 run failed, 2 usage, 3 data or recipe,
4 checkpoint or model, 5 disk or permission, 6 busy or missing dependency, 130/143 stopped.
"""

from typing import ClassVar


class PolyclinicError(Exception):
    """Base of all errors a user may see; exit code 1, the run itself failed."""

    exit_code: ClassVar[int] = 1

    def __init__(self, where: object, what: str, try_: str) -> None:
        self.where = str(where)
        self.what = what
        self.try_ = try_
        super().__init__(self.where, what, try_)

    def __str__(self) -> str:
        """Return the message on one line, whatever line breaks its parts held."""
        return " ".join(f"{self.where}: {self.what}; {self.try_}".split())


class UsageError(PolyclinicError):
    """The command line itself is wrong."""

    exit_code = 2


class RecipeError(PolyclinicError):
    """A recipe cannot be read or means nothing."""

    exit_code = 3


class DataError(PolyclinicError):
    """Input data is missing, broken or not what it claims to be."""

    exit_code = 3


class UnknownLanguageError(DataError):
    """A language code that the table does not know."""


class CheckpointError(PolyclinicError):
    """A model folder is incomplete, damaged or of an unsupported kind."""

    exit_code = 4


class ProofError(CheckpointError):
    """A conversion does not equal its parent."""


class DiskError(PolyclinicError):
    """The file system refused: no space, no permission, not a folder."""

    exit_code = 5


class BusyError(PolyclinicError):
    """Another process holds what this one needs."""

    exit_code = 6


class MissingDependencyError(PolyclinicError):
    """An optional package is not installed."""

    exit_code = 6
