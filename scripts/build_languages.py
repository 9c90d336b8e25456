"""Build src/polyclinic/data/languages.csv from Glottolog and CLDR; a developer's command.

    python scripts/build_languages.py "$POLYCLINIC_DATA"/glottolog/languages.csv

Lineages and glottocodes come from Glottolog 5.1 (glottolog/glottolog-cldf v5.1, CC-BY-4.0); names,
native names and likely scripts come from the CLDR tables inside `langcodes` and `language_data`.
The tables below are all that is written by hand, each with its reason.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import langcodes

TARGET = Path(__file__).parents[1] / "src/polyclinic/data/languages.csv"
COLUMNS = [
    "code",
    "iso639_3",
    "name",
    "native_name",
    "script",
    "direction",
    "glottocode",
    "lineage",
    "aliases",
]

# ISO 15924 scripts written right to left (Unicode 16, property Bidi_Class R or AL).
RIGHT_TO_LEFT = frozenset(
    [
        "Adlm",
        "Arab",
        "Armi",
        "Avst",
        "Chrs",
        "Cprt",
        "Elym",
        "Gara",
        "Hatr",
        "Hebr",
        "Hung",
        "Khar",
        "Lydi",
        "Mand",
        "Mani",
        "Mend",
        "Merc",
        "Mero",
        "Narb",
        "Nbat",
        "Nkoo",
        "Orkh",
        "Ougr",
        "Palm",
        "Phli",
        "Phlp",
        "Phnx",
        "Prti",
        "Rohg",
        "Samr",
        "Sarb",
        "Sogd",
        "Sogo",
        "Syrc",
        "Thaa",
        "Todr",
        "Yezi",
    ]
)

# CLDR's default for the code is another variety or standard than the row's, or an outdated one.
NAMES = {
    "apc": "Levantine Arabic",  # CLDR says North; ISO merged ajp (South) into it in 2023
    "bn": "Bengali",  # CLDR says Bangla; its readers in this field search for Bengali
    "prs": "Dari",  # CLDR resolves to fa-AF and prints "Persian (Afghanistan)"
    "tl": "Tagalog",  # CLDR resolves to fil
}
NATIVE_NAMES = {
    "prs": "دری",  # CLDR resolves to fa-AF
    "tl": "Tagalog",  # CLDR resolves to fil
    "tw": "Twi",  # CLDR resolves to ak and prints the macrolanguage
    # CLDR has no native name, and its English one is not in the language's script or spelling:
    "ary": "الدارجة المغربية",
    "arz": "مصرى",
    "av": "авар мацӀ",
    "crh": "q\u0131r\u0131mtatarca",
    "dv": "ދިވެހި",
    "gom": "कोंकणी",
    "hak": "客家话",
    "hne": "छत्तीसगढ़ी",
    "iu": "ᐃᓄᒃᑎᑐᑦ",
    "kv": "коми кыв",
    "mag": "मगही",
    "mnw": "ဘာသာမန်",
    "nan": "闽南语",
    "wuu": "吴语",
}
SCRIPTS = {
    "crh": "Latn",  # CLDR says Cyrl; text collections (FLORES-200, Wikipedia) are Latin
}
# Codes that neither ISO 639-3 nor ISO 639-2 derives from the row: individual or macro languages
# which data sets use for the same text, and withdrawn ISO 639-1 codes.
MORE_ALIASES = {
    "apc": "ajp",
    "dik": "din",
    "gom": "kok",
    "he": "iw",
    "id": "in",
    "jv": "jw",
    "no": "nb nob",
    "ro": "mo mol",
    "tl": "fil",
    "tw": "ak aka",
    "yi": "ji",
}


def code_of(source: dict[str, str]) -> str:
    """Return the code that the project uses: ISO 639-1, else 639-3, unless the csv names one."""
    return source["project_code"] or source["iso639_1"] or source["iso639_3"]


def lineage_of(source: dict[str, str], name: str) -> str:
    """Return the lineage root first; an isolate (Basque) is the only member of its own family."""
    return source["lineage"] or name


def derived_aliases(code: str, iso639_3: str) -> Iterator[str]:
    """Yield the three-letter codes of the row: individual, macrolanguage, bibliographic."""
    yield iso639_3
    if code != iso639_3:
        yield langcodes.get(code, normalize=False).to_alpha3(variant="T")
        yield langcodes.get(code, normalize=False).to_alpha3(variant="B")
    yield from MORE_ALIASES.get(code, "").split()


def row_of(source: dict[str, str]) -> dict[str, str]:
    """Return the finished row for one Glottolog row."""
    code = code_of(source)
    aliases = dict.fromkeys(derived_aliases(code, source["iso639_3"]))
    cldr = langcodes.Language.get(code)
    name = NAMES.get(code) or cldr.display_name("en")
    script = SCRIPTS.get(code) or cldr.maximize().script or ""
    return {
        "code": code,
        "iso639_3": source["iso639_3"],
        "name": name,
        "native_name": NATIVE_NAMES.get(code) or cldr.autonym() or name,
        "script": script,
        "direction": "rtl" if script in RIGHT_TO_LEFT else "ltr",
        "glottocode": source["glottocode"],
        "lineage": lineage_of(source, name),
        "aliases": " ".join(alias for alias in aliases if alias != code),
    }


def checked(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows, or stop where a cell is empty or one code would name two languages."""
    owner: dict[str, str] = {}
    for row in rows:
        empty = [column for column in COLUMNS if not row[column] and column != "aliases"]
        if empty:
            raise SystemExit(f"{row['code']}: no {', '.join(empty)}")
        for code in (row["code"], *row["aliases"].split()):
            if owner.setdefault(code, row["code"]) != row["code"]:
                raise SystemExit(f"{code} would name both {owner[code]} and {row['code']}")
    return rows


def write(rows: Iterable[dict[str, str]], target: Path) -> None:
    """Write the table with fixed line ends, so that a rebuild gives the same bytes everywhere."""
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Read the Glottolog csv named on the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("glottolog", type=Path, help="languages.csv made from Glottolog 5.1")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    with arguments.glottolog.open(encoding="utf-8", newline="") as stream:
        write(checked([row_of(source) for source in csv.DictReader(stream)]), arguments.target)


if __name__ == "__main__":
    main()
