"""The README of a corpus folder: a dataset card whose front matter the Hugging Face hub and `datasets` read.

One configuration for each split, all over the same Parquet files with a filter, and one for the
exam questions.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from polyclinic.corpus.card.card_page import splits_of

# Identifiers of https://huggingface.co/docs/hub/repositories-licenses, of those that sources here bear.
LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-4.0",
        "odc-by",
        "odbl",
        "pddl",
        "unlicense",
        "gpl-3.0",
        "bsd-3-clause",
        "unknown",
    ]
)
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))  # fmt: skip


def front_matter(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the hub reads of a card."""
    rows = card["languages"]
    splits = splits_of(card)
    documents = sum(row.get(split, 0) for row in rows.values() for split in splits)
    licences = sorted({_licence(source["licence"]) for source in card["sources"]})
    texts = [
        {
            "config_name": split,
            "data_files": [{"split": split, "path": "documents/*.parquet"}],
            "filters": [["split", "==", split]],
            **({"default": True} if split == "train" else {}),
        }
        for split in splits
        if any(row.get(split) for row in rows.values())
    ]
    asked = any(row.get("questions") for row in rows.values())
    exams = {"config_name": "questions", "data_files": [{"split": "test", "path": "questions.parquet"}]}
    return {
        "pretty_name": "A medical corpus built with Polyclinic",
        "language": [code for code, row in rows.items() if row.get("characters")],
        **({"license": licences} if licences else {}),
        "task_categories": ["text-generation", *(["multiple-choice", "question-answering"] if asked else [])],
        "tags": ["medical"],
        "size_categories": [next((name for size, name in SIZES if documents < size), "10B<n<100B")],
        "configs": [*texts, *([exams] if asked else [])],
    }


def _licence(name: str) -> str:
    return name.lower() if name.lower() in LICENCES else "other"


def as_readme(card: Mapping[str, Any], body: str) -> str:
    """Return front matter, the card's own text, how to read the files, and whom to name for each source."""
    head = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=1000)
    use = (
        "## Reading it\n\n"
        "    from datasets import load_dataset\n"
        '    load_dataset("path/to/this/folder", "train")\n\n'
        "Each document has `id`, `language`, `source`, `licence`, `group` (joins translations), `turns`, `split`, "
        "`category` and `url`.\n"
    )
    return f"---\n{head}---\n\n{body}\n{use}\n## Attribution\n\n{attribution(card)}\n"


def attribution(card: Mapping[str, Any]) -> str:
    """Return a line for each source: its name, licence and address."""
    lines = []
    for source in card["sources"]:
        address = f", {' '.join(source['url'].split())}" if source["url"] else ""
        name, licence = (" ".join(source[key].split()) for key in ("source", "licence"))
        lines.append(f"- {name}: licence {licence}{address}")
    return "\n".join(lines) or "- no sources"
