"""The table of languages as a terminal shows it: columns by display width, every direction intact."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

from polyclinic.families import Preset, load_preset
from polyclinic.languages import language

COLUMNS = ("code", "language", "native name", "script", "direction", "family", "expert")
# First-strong isolate and its end keep a right-to-left name from turning its line around.
ISOLATE, END = "\u2068", "\u2069"


def rows(preset_name: str, codes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a language: its facts, and its family and expert in a preset."""
    preset = load_preset(preset_name)
    listed = [code for family in preset.families for code in family.languages]
    return [_row(preset, code) for code in codes or listed]


def _row(preset: Preset, code: str) -> dict[str, Any]:
    entry = language(code)
    expert = preset.expert_of(entry.code)
    return {
        "code": entry.code,
        "language": entry.name,
        "native name": entry.native_name,
        "script": entry.script,
        "direction": entry.direction,
        "family": entry.family,
        "expert": f"{expert} {preset.families[expert].name}",
        "placed": preset.explain(entry.code),
        "lineage": list(entry.lineage),
    }


def lines(preset_name: str, found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as text, with the preset's note below."""
    preset = load_preset(preset_name)
    table = [COLUMNS, *[tuple(str(row[c]) for c in COLUMNS) for row in found]]
    widths = [max(cell_len(line[i]) for line in table) for i in range(len(COLUMNS))]
    out = ["  ".join(_cell(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    placed = [f"{row['code']}: {row['placed']}" for row in found if row["placed"] != "listed"]
    return [*out, *placed, "", f"{preset.name}: {preset.note}"]


def _cell(text: str, width: int) -> str:
    """Pad by display width; isolate what is not ASCII."""
    padding = " " * (width - cell_len(text))
    return (text if text.isascii() else f"{ISOLATE}{text}{END}") + padding
