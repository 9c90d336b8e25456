"""Languages and experts as a terminal shows them: columns by display width, every direction intact.

With a corpus, also what each expert of a preset carries of it, and how even that is: an expert with
N times the mean is trained on N times the text, and one without text is never trained for its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len

from polyclinic.families import Preset, balance, load_preset, preset_names
from polyclinic.languages import language

COLUMNS = ("code", "language", "native name", "script", "direction", "family", "expert")
# First-strong isolate and its end keep a right-to-left name from turning its line around.
ISOLATE, END = "\u2068", "\u2069"
TOKENS, CHARACTERS = "tokens", "characters"
RECOMPUTED = "recomputed"
UNITS = {
    TOKENS: "Tokens of the packed training text, in the vocabulary of its run.",
    CHARACTERS: "Characters of all text, held-out too: nothing is packed here. They are not fair across scripts "
    "(one of Chinese or Devanagari is two to three times the tokens of one of Latin); the packs of a run hold tokens.",
}


class Text(NamedTuple):
    """How much text a corpus has of each language, by code and in one unit."""

    unit: str
    amounts: Mapping[str, int]


def rows(preset: Preset, codes: Sequence[str], text: Text | None = None) -> list[dict[str, Any]]:
    """Return one row a language: its facts, its family and expert in a preset, and its text if given.

    Without codes these are the languages of the preset, then those of the text that it does not list.
    """
    listed = dict.fromkeys(code for family in preset.families for code in family.languages)
    found = codes or [*(listed | dict.fromkeys(text.amounts if text else ()))]
    return [_row(preset, code, text) for code in found]


def _row(preset: Preset, code: str, text: Text | None) -> dict[str, Any]:
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
        **({text.unit: text.amounts.get(entry.code, 0)} if text else {}),
        "placed": preset.explain(entry.code),
        "lineage": list(entry.lineage),
    }


def lines(preset: Preset, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table as text, with the preset's note below."""
    table = _table((*COLUMNS, *(unit for unit in UNITS if unit in found[0])), found)
    placed = [f"{row['code']}: {row['placed']}" for row in found if row["placed"] != "listed"]
    return [*table, *placed, "", f"{preset.name}: {preset.note}"]


def experts(preset: Preset, text: Text) -> list[dict[str, Any]]:
    """Return one row an expert: its languages with text, the heaviest first, their text, share and times the mean."""
    served: list[dict[str, int]] = [{} for _ in preset.families]
    for code, amount in sorted(text.amounts.items(), key=lambda item: (-item[1], item[0])):
        if amount:
            served[preset.expert_of(code)][code] = amount
    shares = [sum(own.values()) / sum(text.amounts.values()) for own in served]
    return [
        {
            "expert": expert,
            "family": preset.families[expert].name,
            text.unit: sum(own.values()),
            "share": shares[expert],
            "times mean": shares[expert] * preset.num_experts,
            "languages": list(own),
        }
        for expert, own in enumerate(served)
    ]


def recomputed(text: Text, num_experts: int, name: str = RECOMPUTED) -> Preset:
    """Return the families that the rule of `balanced` gives for the languages that have text.

    Loads are in millions of the text's unit. Raises RecipeError for more experts than such languages.
    """
    loads = {code: amount / 1e6 for code, amount in text.amounts.items() if amount}
    note = (
        f"The rule of balanced for {num_experts} experts and the {len(loads)} languages of one corpus, of "
        f"{sum(text.amounts.values()):,} {text.unit}. Loads are millions of {text.unit}."
    )
    return Preset(name, note, balance(loads, num_experts), "Glottolog 5.1 (CC-BY-4.0) and the loads", loads)


def beside(preset: Preset, text: Text, asked: Preset) -> list[dict[str, Any]]:
    """Return how even the shown preset is, the asked one, the recomputed one, and every shipped one."""
    presets = [preset, asked] if asked != preset else [preset]
    if preset.num_experts <= sum(map(bool, text.amounts.values())):
        best = recomputed(text, preset.num_experts)
        presets += [best] * all(best.families != other.families for other in presets)
    presets += [shipped for shipped in map(load_preset, preset_names()) if shipped not in presets]
    return [_evenness(preset, text) for preset in presets]


def _evenness(preset: Preset, text: Text) -> dict[str, Any]:
    found = experts(preset, text)
    heaviest = max(found, key=lambda row: row["share"])
    return {
        "preset": preset.name,
        "experts": preset.num_experts,
        "times mean": heaviest["times mean"],
        "share": heaviest["share"],
        "without text": sum(not row["languages"] for row in found),
        "heaviest expert": f"{heaviest['expert']} {heaviest['family']}",
    }


def burden(preset: Preset, text: Text, asked: Preset) -> dict[str, Any]:
    """Return all of the above as one value; `floor` is what no families of so many experts can be below."""
    heaviest = min(text.amounts, key=lambda code: (-text.amounts[code], code))
    share = text.amounts[heaviest] / sum(text.amounts.values())
    return {
        "preset": preset.name,
        "unit": text.unit,
        "experts": experts(preset, text),
        "floor": {"language": heaviest, "times mean": share * preset.num_experts},
        "beside": beside(preset, text, asked),
    }


def burden_lines(preset: Preset, found: Mapping[str, Any]) -> list[str]:
    """Return what each expert carries as text; a language that the preset does not list has a star."""
    unit, listed = found["unit"], {code for family in preset.families for code in family.languages}
    shown = [
        {**row, "languages": " ".join(code + "*" * (code not in listed) for code in row["languages"])}
        for row in found["experts"]
    ]
    out = _table(("expert", "family", unit, "share", "times mean", "languages"), shown)
    if "*" in "".join(row["languages"] for row in shown):
        out.append("* not listed by the preset")
    even, floor = found["beside"][0], found["floor"]
    out.append(f"heaviest expert carries {even['times mean']:.2f} x the mean ({even['heaviest expert']})")
    if floor["times mean"] > 1:
        out.append(f"{floor['language']} alone is {floor['times mean']:.2f} x the mean: no families can be below")
    columns = ("preset", "experts", "times mean", "share", "without text", "heaviest expert")
    return [*out, "", *_table(columns, found["beside"]), "", UNITS[unit]]


def _table(columns: Sequence[str], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out rows under their columns: numbers to the right, all else to the left."""
    table = [[_shown(row[c]) for c in columns] for row in found]
    widths = [max(cell_len(line[i]) for line in [columns, *table]) for i in range(len(columns))]
    right = [isinstance(found[0][c], int | float) for c in columns]
    layout = list(zip(widths, right, strict=True))
    return [
        "  ".join(_cell(cell, *place) for cell, place in zip(line, layout, strict=True)).rstrip()
        for line in [columns, *table]
    ]


def _shown(value: Any) -> str:
    """Return a number as people read it, and text as it is."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str, width: int, right: bool) -> str:
    """Pad by display width; isolate what is not ASCII."""
    padding = " " * (width - cell_len(text))
    isolated = text if text.isascii() else f"{ISOLATE}{text}{END}"
    return padding + isolated if right else isolated + padding
