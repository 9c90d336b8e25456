"""Write the computed presets of src/polyclinic/data/families; a developer's command.

    PYTHONPATH=src python scripts/build_families.py

`balanced`, `glottolog`, `two` and `languages` follow from the lineages and from the loads below; `apollo`
and `apollo12` are copied from the paper by hand and only repeat the loads.
"""

import argparse
from math import fsum
from pathlib import Path

from polyclinic.families import Family, Preset, as_yaml, balance
from polyclinic.languages import language

TARGET = Path(__file__).parents[1] / "src/polyclinic/data/families"
PAPER = "arXiv 2410.10626"
NUM_BALANCED_EXPERTS = 7  # as many as the paper's groups, so that sizes compare
OTHERS = "Other families"

# Millions of tokens, Figure 1 of the paper, in the order of its label ids.
MAJOR_LOADS = {
    "ar": 29.1,
    "de": 74.8,
    "en": 1084.65,
    "es": 110.7,
    "fr": 35.1,
    "hi": 43.9,
    "it": 78.88,
    "ja": 20.2,
    "ko": 35.41,
    "pt": 56.6,
    "ru": 126.63,
    "zh": 778.63,
}
MINORS = [
    "bg",
    "bm",
    "bs",
    "ceb",
    "ckb",
    "co",
    "cs",
    "da",
    "doi",
    "eo",
    "gd",
    "gl",
    "gn",
    "ha",
    "he",
    "hr",
    "ig",
    "ilo",
    "la",
    "lb",
    "ln",
    "lo",
    "mai",
    "mg",
    "mt",
    "ne",
    "no",
    "nso",
    "rw",
    "sa",
    "sk",
    "sq",
    "sr",
    "su",
    "sw",
    "th",
    "uk",
    "vi",
]
# 2,993 documents of 1,585 characters, counted in one minor language, at 4 characters per token.
MINOR_LOAD = round(2993 * 1585 / 4 / 1e6, 3)
LOADS = {**MAJOR_LOADS, **dict.fromkeys(MINORS, MINOR_LOAD)}
LOADS_NOTE = (
    f"Loads are millions of tokens: {PAPER}, Figure 1, for the twelve majors; for each minor "
    "2,993 documents x 1,585 characters / 4 characters per token, an estimate."
)


def balanced() -> Preset:
    """Return the default: groups of even load, cut along Glottolog's tree."""
    note = (
        "The default. Starts from Glottolog's top-level families; splits the heaviest one that "
        "still branches at its next branching while it exceeds the mean load (all loads / experts) "
        "or there are too few; then merges the two lightest until seven remain. Groups need not be "
        f"clades, and no split helps a single language above the mean. {LOADS_NOTE}"
    )
    families = balance(LOADS, NUM_BALANCED_EXPERTS)
    return Preset("balanced", note, families, "Glottolog 5.1 (CC-BY-4.0) and the loads", LOADS)


def glottolog() -> Preset:
    """Return the top-level families, those with one minor language only merged into one."""
    note = (
        "Glottolog's top-level families over the fifty languages. A family with at least two of "
        "the fifty, or with one of the twelve majors, keeps an expert of its own; the rest, each "
        f'one minor language, share "{OTHERS}", which also takes languages related to none. '
        f"{LOADS_NOTE}"
    )
    tops: dict[str, list[str]] = {}
    for code in sorted(LOADS):
        tops.setdefault(language(code).family, []).append(code)
    own = {top: codes for top, codes in tops.items() if len(codes) > 1 or codes[0] in MAJOR_LOADS}
    rest = [code for top, codes in tops.items() if top not in own for code in codes]
    ranked = sorted(own, key=lambda top: (-fsum(LOADS[code] for code in own[top]), top))
    families = [Family(top, tuple(own[top])) for top in ranked]
    families.append(Family(OTHERS, tuple(sorted(rest))))
    return Preset("glottolog", note, tuple(families), "Glottolog 5.1 (CC-BY-4.0)", LOADS, OTHERS)


def two() -> Preset:
    """Return two groups of even load, for the baseline whose two experts are both at work."""
    note = (
        "Two groups made as those of balanced are. For the baseline `two`: with two picks for each token both experts "
        f"are always at work, so that no family matters. {LOADS_NOTE}"
    )
    return Preset("two", note, balance(LOADS, 2), "Glottolog 5.1 (CC-BY-4.0) and the loads", LOADS)


def languages() -> Preset:
    """Return one expert for each of the fifty, majors first, so that 0..11 equal apollo12."""
    note = f"One expert for each of the fifty languages; ids 0 to 11 equal apollo12. {LOADS_NOTE}"
    families = tuple(Family(language(code).name, (code,)) for code in LOADS)
    return Preset("languages", note, families, PAPER, LOADS)


def main() -> None:
    """Write the computed presets and print what each expert carries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET)
    target = parser.parse_args().target
    for preset in (balanced(), glottolog(), two(), languages()):
        (target / f"{preset.name}.yaml").write_text(as_yaml(preset), encoding="utf-8")
        print(preset.name)
        for family in preset.families:
            print(f"  {preset.load_of(family):8.1f}  {family.name}: {' '.join(family.languages)}")


if __name__ == "__main__":
    main()
