"""Which expert of a checkpoint serves a language."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from polyclinic.clades import shared_depth
from polyclinic.errors import CheckpointError, UnknownLanguageError
from polyclinic.families import recorded
from polyclinic.languages import language
from polyclinic.moe.checkpoint import POLYCLINIC, read_families
from polyclinic.moe.router import UNKNOWN_FAMILY


class Experts:
    """The experts of languages as a checkpoint records them.

    A language that it does not list goes where its relatives are; one without relatives has no expert of its own.
    Raises CheckpointError where nothing is recorded or what is recorded fits no expert.
    """

    def __init__(self, checkpoint: Path, num_experts: int) -> None:
        facts = read_families(checkpoint)
        try:
            self._preset = recorded(facts["families"])
            self._recorded = {str(code): int(expert) for code, expert in facts["expert_of"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise _damaged(checkpoint) from err
        if self._preset.num_experts > num_experts or not all(0 <= e < num_experts for e in self._recorded.values()):
            raise _damaged(checkpoint)
        self.of = lru_cache(maxsize=None)(self._of)

    def _of(self, code: Any) -> int:
        if code in self._recorded:
            return self._recorded[code]
        if not isinstance(code, str):
            return UNKNOWN_FAMILY
        try:
            row = language(code)
        except UnknownLanguageError:
            return UNKNOWN_FAMILY
        if row.code in self._recorded:
            return self._recorded[row.code]
        listed = [language(one) for family in self._preset.families for one in family.languages]
        related = any(one.code == row.code or shared_depth(row, one) for one in listed)
        return self._preset.expert_of(row.code) if related else UNKNOWN_FAMILY


def _damaged(checkpoint: Path) -> CheckpointError:
    return CheckpointError(checkpoint / POLYCLINIC, "names experts that the model does not have", "build it again")
