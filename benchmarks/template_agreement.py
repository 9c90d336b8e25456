"""How often packs and the rendered chat template hold the same ids.

    PYTHONPATH=tests POLYCLINIC_DATA=... python benchmarks/template_agreement.py

Conversations: the starter corpus, and real texts, four in a row of a language as two questions with
answers. `finer` cuts the text behind every question and head too, as packs once did. Vocabularies of
four kinds are learned from the starter corpus.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from transformers import AutoTokenizer

import vocabularies
from polyclinic.corpus import starter
from polyclinic.corpus.pack.pack import encode_segments, load_tokenizer
from polyclinic.prompts import segments
from polyclinic.records import Role, Turn

PER_LANGUAGE = 100
ROLES: tuple[Role, ...] = ("user", "assistant", "user", "assistant")

Chat = tuple[str, list[Turn]]


def real(root: Path) -> Iterator[Chat]:
    """Yield conversations of real texts with their language."""
    for path in sorted((root / "text").glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            texts = (json.loads(line)["text"] for line in lines)
            for four in islice(zip(texts, texts, texts, texts, strict=False), PER_LANGUAGE):
                yield path.stem, [Turn(role, text) for role, text in zip(ROLES, four, strict=True)]


def measure(folder: Path, chats: list[Chat]) -> str:
    """Compare both cuts with the stock call on every conversation."""
    stock = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours, specials = load_tokenizer(folder)
    equal, finer = 0, 0
    differ = set()
    for language, turns in chats:
        asked = stock.apply_chat_template([turn._asdict() for turn in turns], return_dict=False)
        same = asked == encode_segments(segments(turns), ours, specials.end)[0]
        equal += same
        if not same:
            differ.add(language)
        apart = [encode_segments([piece], ours, specials.end)[0] for piece in segments(turns)]
        finer += asked == [i for ids in apart for i in ids]
    languages = len({language for language, _ in chats})
    return (
        f"{len(chats):6,} in {languages} languages: equal {equal:,} (finer {finer:,}), {len(differ)} languages differ"
    )


def main() -> None:
    """Print a line per vocabulary and corpus."""
    corpora = {"starter": [(d.language, list(d.turns)) for d in starter.documents()]}
    if root := os.environ.get("POLYCLINIC_DATA"):
        corpora["real"] = list(real(Path(root)))
        named = sum("<|" in turn.content for _, turns in corpora["real"] for turn in turns)
        print(f"real: {named} texts hold '<|'")
    with tempfile.TemporaryDirectory() as work:
        for kind in vocabularies.KINDS:
            folder = vocabularies.vocabulary(kind, Path(work) / kind)
            for name, chats in corpora.items():
                print(f"{kind:<10} {name:<8} {measure(folder, chats)}")


if __name__ == "__main__":
    main()
