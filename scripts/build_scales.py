"""Derive `data/scales.csv`: how many letters and tokens a script needs for one of Latin script.

    POLYCLINIC_DATA=... python scripts/build_scales.py

Reads the parallel documents of NTREX-128 (`general/*.jsonl`, source `ntrex128`). The figure of a script is
the median over its languages of (units of all documents) / (units of their English originals), divided by that
of Latin script. Traditional Han gets the figure of simplified Han.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from statistics import median

from polyclinic.corpus.units import letters, plain, tokens
from polyclinic.languages import all_languages

SOURCE = "ntrex128"
TARGET = Path(__file__).parents[1] / "src" / "polyclinic" / "data" / "scales.csv"


def read(root: Path) -> dict[str, dict[str, str]]:
    """Return for each language the documents of the parallel source by their parallel id."""
    out: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((root / "general").glob("*.jsonl")):
        for line in path.read_text("utf-8").split("\n"):
            record = json.loads(line) if line else {}
            if record.get("source") == SOURCE:
                out[record["language"]][record["parallel_id"]] = plain(record["text"])
    return out


def ratios(found: dict[str, str], english: dict[str, str]) -> tuple[float, float]:
    """Return letters and tokens of one language in relation to English, over the documents both have."""
    both = sorted(found.keys() & english.keys())
    pairs = [
        tuple(int(count([texts[i] for i in both]).sizes().sum()) for texts in (found, english))
        for count in (letters, tokens)
    ]
    return pairs[0][0] / pairs[0][1], pairs[1][0] / pairs[1][1]


def main() -> None:
    """Write the table, one line a script."""
    texts = read(Path(os.environ["POLYCLINIC_DATA"]))
    scripts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for code in sorted(texts):
        scripts[all_languages()[code].script].append(ratios(texts[code], texts["en"]))
    scripts["Hant"] = scripts["Hans"]
    middle = {script: [median(pair[kind] for pair in found) for kind in (0, 1)] for script, found in scripts.items()}
    lines = ["script,letters,tokens"]
    for script in sorted(middle):
        letters_, tokens_ = (of / latin for of, latin in zip(middle[script], middle["Latn"], strict=True))
        lines.append(f"{script},{letters_:.2f},{tokens_:.2f}")
    TARGET.write_text("\n".join(lines) + "\n", "utf-8")
    print(TARGET.read_text("utf-8"))


if __name__ == "__main__":
    main()
