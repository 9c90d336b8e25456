"""Families of languages: which expert serves which language, as a file (a preset).

Expert i serves family i. A language that no family lists is placed by walking up its Glottolog
lineage. Shipped presets are `data/families/*.yaml`; `apollo` is arXiv 2410.10626, Table 3.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from math import fsum, isfinite
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic import strict_yaml
from polyclinic.clades import even_groups, group_name, shared_depth
from polyclinic.errors import RecipeError
from polyclinic.languages import Language, all_languages, language

_SHIPPED = "data/families"
_TEXTS = ("name", "note", "source", "unrelated")


@dataclass(frozen=True)
class Family:
    """The languages that share one expert."""

    name: str
    languages: tuple[str, ...]


class _Placement(NamedTuple):
    """An expert and why: the listed relatives there and the clade they share, or none of both."""

    expert: int
    beside: tuple[str, ...] = ()
    clade: str = ""


@dataclass(frozen=True)
class Preset:
    """Families in the order of their experts, with millions of tokens per language if known.

    `unrelated` names the family that takes a language related to none listed; without it the
    family with the lightest load does, or the one with the fewest languages if no load is known.
    """

    name: str
    note: str
    families: tuple[Family, ...]
    source: str = ""
    loads: Mapping[str, float] = field(default_factory=dict, hash=False)
    unrelated: str = ""

    @property
    def num_experts(self) -> int:
        """Return how many experts serve the families: one each."""
        return len(self.families)

    @property
    def follows_lineage(self) -> bool:
        """Return whether every family keeps within one top-level family of Glottolog."""
        tops = ({language(code).family for code in family.languages} for family in self.families)
        return all(len(top) == 1 for top in tops)

    def expert_of(self, code: str) -> int:
        """Return the expert of any known language, listed or not."""
        return self._placements[language(code).code].expert

    def family_of(self, code: str) -> Family:
        """Return the family whose expert serves the language."""
        return self.families[self.expert_of(code)]

    def load_of(self, family: Family) -> float:
        """Return the family's load in millions of tokens; a language without one counts as 0."""
        return fsum(self.loads.get(code, 0.0) for code in family.languages)

    def explain(self, code: str) -> str:
        """Return in words why the language has its expert."""
        known = language(code).code
        expert, beside, clade = self._placements[known]
        if beside:
            return f"placed by lineage beside {', '.join(beside)} ({clade})"
        if known in self.families[expert].languages:
            return "listed"
        measure = "lightest load" if self.loads else "fewest languages"
        reason = "which takes such languages" if self.unrelated else f"which has the {measure}"
        return f'related to none listed; placed in "{self.families[expert].name}", {reason}'

    @cached_property
    def _placements(self) -> Mapping[str, _Placement]:
        numbered = enumerate(self.families)
        listed = {code: _Placement(i) for i, family in numbered for code in family.languages}
        return {code: listed.get(code) or self._place(row) for code, row in all_languages().items()}

    def _place(self, row: Language) -> _Placement:
        """Longest shared lineage wins, then most members sharing it, then the lowest expert."""
        depths = [{code: shared_depth(row, language(code)) for code in family.languages} for family in self.families]
        deepest = max(depth for shared in depths for depth in shared.values())
        if deepest == 0:
            return _Placement(self._home_of_unrelated())
        beside = [tuple(c for c, depth in shared.items() if depth == deepest) for shared in depths]
        expert = max(range(len(beside)), key=lambda i: (len(beside[i]), -i))
        return _Placement(expert, beside[expert], row.lineage[deepest - 1])

    def _home_of_unrelated(self) -> int:
        if self.unrelated:
            return [family.name for family in self.families].index(self.unrelated)
        weights = [self.load_of(f) if self.loads else len(f.languages) for f in self.families]
        return weights.index(min(weights))


def balance(loads: Mapping[str, float], num_experts: int) -> tuple[Family, ...]:
    """Return `num_experts` families with loads as even as the tree of languages allows.

    Start from the top-level families. While the heaviest one that still branches exceeds the mean
    load, or there are too few, split it at its next branching. Then merge the two lightest until
    `num_experts` remain. Ties go to the smallest code; the heaviest family comes first.
    """
    weights = _loads(loads, "balance")
    what = f"{num_experts} experts for {len(weights)} languages"
    _expect(1 <= num_experts <= len(weights), "balance", what, "ask for 1 up to one per language")
    return tuple(
        Family(group_name(group, weights), tuple(sorted(c for clade in group for c in clade.codes)))
        for group in even_groups(weights, num_experts)
    )


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets."""
    entries = (files("polyclinic") / _SHIPPED).iterdir()
    return tuple(sorted(Path(entry.name).stem for entry in entries if entry.name.endswith(".yaml")))


def load_preset(name_or_path: str | Path) -> Preset:
    """Return a shipped preset by its name, or a user's preset from a YAML file."""
    name, shipped = str(name_or_path), preset_names()
    if name in shipped:
        text = (files("polyclinic") / _SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        return _preset(strict_yaml.parse(text, f"{name}.yaml"), f"{name}.yaml")
    near = get_close_matches(name, shipped, n=1)
    try_ = f"did you mean {near[0]}?" if near else f"choose {', '.join(shipped)}, or name a file"
    _expect(Path(name).exists(), name, "neither a shipped preset nor a file", try_)
    return _preset(strict_yaml.load(Path(name)), name)


def recorded(entries: Iterable[Mapping[str, Any]]) -> Preset:
    """Return the families that a checkpoint records beside its weights as a preset."""
    return Preset("recorded", "", tuple(Family(entry["name"], tuple(entry["languages"])) for entry in entries))


def as_yaml(preset: Preset) -> str:
    """Return a preset as the text of a file that `load_preset` reads back equal.

    Every code is quoted, which Norwegian `no` needs in YAML 1.1. Raises RecipeError where a name or
    note is of a kind that this form does not hold.
    """
    lines = [f"name: {_quoted(preset.name)}", "note: >-", *_wrapped(preset.note, "  ")]
    lines.append(f"source: {_quoted(preset.source)}")
    if preset.loads:
        loads = ", ".join(f"{_quoted(code)}:\u00a0{load}" for code, load in preset.loads.items())
        lines += ["loads: {", *(line.replace("\u00a0", " ") for line in _wrapped(loads, "  ")), "}"]
    if preset.unrelated:
        lines.append(f"unrelated: {_quoted(preset.unrelated)}")
    lines.append("families:")
    for family in preset.families:
        lines += [f"  - name: {_quoted(family.name)}", *_wrapped(json.dumps(family.languages), "    languages: ")]
    text = "\n".join(lines) + "\n"
    same = _preset(strict_yaml.parse(text, preset.name), preset.name) == preset
    _expect(same, preset.name, "cannot be written as a families file", "choose plain words")
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _wrapped(text: str, label: str) -> list[str]:
    """Wrap at blanks only: a no-break space keeps a code and its load on one line."""
    indent = " " * len(label)
    return textwrap.wrap(
        text, 96, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def expert_called(name: str, families: Sequence[str], expert_of: Mapping[str, int], where: str) -> int:
    """Return the expert that a family's name, one of its languages, or its own number calls.

    `families` are the names in the order of experts, `expert_of` maps languages to experts. Raises
    RecipeError naming the nearest for what calls none.
    """
    if name in families:
        return families.index(name)
    if name in expert_of:
        return expert_of[name]
    if name.isascii() and name.isdigit() and int(name) < len(families):
        return int(name)
    known = {one.lower(): one for one in (*families, *expert_of)}
    near = get_close_matches(name.lower(), known, n=1)
    listed = ", ".join(f"{number} {family}" for number, family in enumerate(families))
    try_ = f"did you mean '{known[near[0]]}'?" if near else f"the families are {listed}"
    raise RecipeError(where, f"there is no family '{name}'", try_)


def majors() -> tuple[str, ...]:
    """Return the paper's twelve major languages in the order of its label ids."""
    return _listed(load_preset("apollo12").families)


def fifty() -> tuple[str, ...]:
    """Return the paper's fifty languages, majors first."""
    return _listed(load_preset("languages").families)


def _listed(families: Iterable[Family]) -> tuple[str, ...]:
    return tuple(code for family in families for code in family.languages)


def _preset(data: dict[str, Any], where: str) -> Preset:
    _check_keys(data, (*_TEXTS, "loads", "families"), ("name", "families"), where)
    texts = {key: data[key] for key in _TEXTS if key in data}
    for key, value in texts.items():
        _expect(isinstance(value, str), where, f"{key} must be text, not {value!r}")
    entries = data["families"]
    _expect(isinstance(entries, list) and bool(entries), where, "families must be a filled list")
    families = tuple(_family(entry, where) for entry in entries)
    _check_partition(families, where)
    loads = _loads(data.get("loads", {}), where)
    preset = Preset(**{"note": "", **texts}, families=families, loads=loads)
    _check_agreement(preset, where)
    return preset


def _expect(condition: bool, where: str, what: str, try_: str = "correct the file") -> None:
    if not condition:
        raise RecipeError(where, what, try_)


def _check_keys(data: Any, allowed: Iterable[str], needed: Iterable[str], where: str) -> None:
    _expect(isinstance(data, dict), where, f"a mapping was expected, not {data!r}")
    for key in data:
        near = get_close_matches(str(key), allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(sorted(allowed))}"
        _expect(key in allowed, where, f"unknown key {key!r}", hint)
    for key in needed:
        _expect(key in data, where, f"{key} is missing", f"add {key}")


def _family(entry: Any, where: str) -> Family:
    _check_keys(entry, ("name", "languages"), ("name", "languages"), f"{where}: families")
    name, codes = entry["name"], entry["languages"]
    _expect(isinstance(name, str) and bool(name), where, f"family name {name!r} must be text")
    place = f"{where}: family {name!r}"
    _expect(isinstance(codes, list) and bool(codes), place, "no language", "list codes or drop it")
    return Family(name, tuple(language(code, where=place).code for code in codes))


def _check_partition(families: tuple[Family, ...], where: str) -> None:
    owner: dict[str, str] = {}
    names = [family.name for family in families]
    for i, family in enumerate(families):
        _expect(family.name not in names[:i], where, f"two families are named {family.name!r}")
        for code in family.languages:
            what = f"{code} stands in {owner.get(code)!r} and in {family.name!r}"
            _expect(code not in owner, where, what, "list each language once")
            owner[code] = family.name


def _loads(data: Any, where: str) -> dict[str, float]:
    place = f"{where}: loads"
    _expect(isinstance(data, Mapping), place, f"a mapping of code to load, not {data!r}, expected")
    loads: dict[str, float] = {}
    for key, load in data.items():
        code = language(key, where=place).code
        valid = isinstance(load, int | float) and not isinstance(load, bool)
        valid = valid and isfinite(load) and load >= 0
        _expect(valid, place, f"{key}: {load!r} is no load", "give millions of tokens, 0 or more")
        _expect(code not in loads, place, f"{code} stands twice", "list each language once")
        loads[code] = float(load)
    return loads


def _check_agreement(preset: Preset, where: str) -> None:
    apart = sorted(set(_listed(preset.families)) ^ set(preset.loads)) if preset.loads else []
    what = f"loads and families disagree about {', '.join(apart)}"
    _expect(not apart, where, what, "give a load to each listed language and to no other")
    names = ["", *(family.name for family in preset.families)]
    what = f"unrelated: there is no family {preset.unrelated!r}"
    _expect(preset.unrelated in names, where, what, "name one of the families")
