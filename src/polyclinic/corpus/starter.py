"""The starter corpus: eight health topics in fifty languages, written for this project, CC0.

Machine-written demonstration text, not medical advice. Two topics are held out from training. The
multiple-choice questions are derived: a topic's question, one of its answer sentences as the right
option, three sentences of other topics of the same split as the wrong ones, so that all options
were seen in training or none was.
"""

import json
import random
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from polyclinic.records import Document, Question, Turn
from polyclinic.runs import digest

HELD_OUT_TOPICS = frozenset({"burns", "safe_water"})
SOURCE = "polyclinic-starter"
NOTICE = "Machine-written demonstration text, not medical advice."
LICENCE = "CC0-1.0"
NUM_OPTIONS = 4


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Return the corpus as stored: language -> {notice, units, topics}, by code."""
    folder = resources.files("polyclinic.data").joinpath("starter")
    files = [f for f in folder.iterdir() if f.name.endswith(".json")]
    files.sort(key=lambda f: f.name)
    return {f.name.removesuffix(".json"): json.loads(f.read_text("utf-8")) for f in files}


def _split(topic: str) -> str:
    return "held_out" if topic in HELD_OUT_TOPICS else "train"


def documents() -> Iterator[Document]:
    """Yield each topic of each language as a conversation of one question and its answer."""
    for code, entry in entries().items():
        for topic, text in entry["topics"].items():
            turns = (Turn("user", text["question"]), Turn("assistant", " ".join(text["answer"])))
            yield Document(
                id=f"{SOURCE}:{topic}:{code}",
                language=code,
                source=SOURCE,
                licence=LICENCE,
                group=f"{SOURCE}:{topic}",
                turns=turns,
                split=_split(topic),
            )


def questions() -> Iterator[Question]:
    """Yield the derived questions; the same item of every language shares group, options and order."""
    for code, entry in entries().items():
        for topic in entry["topics"]:
            for index in range(len(entry["topics"][topic]["answer"])):
                yield _question(code, entry["topics"], topic, index)


def _question(code: str, topics: dict[str, Any], topic: str, index: int) -> Question:
    group = f"{SOURCE}:{topic}:{index}"
    draw = random.Random(group)  # noqa: S311 - a fixed choice, not a secret
    pool = [(t, i) for t in topics if _split(t) == _split(topic) for i in range(len(topics[t]["answer"]))]
    chosen = draw.sample([o for o in pool if o[0] != topic], NUM_OPTIONS - 1)
    # Each place in turn, so that answering one place always does no better than chance.
    place = pool.index((topic, index)) % NUM_OPTIONS
    chosen.insert(place, (topic, index))
    return Question(
        id=f"{group}:{code}",
        language=code,
        source=SOURCE,
        licence=LICENCE,
        group=group,
        split="test" if topic in HELD_OUT_TOPICS else "seen",
        question=topics[topic]["question"],
        options=tuple(topics[t]["answer"][i] for t, i in chosen),
        answers=(place,),
    )


def version() -> str:
    """Return a digest of the whole starter corpus, for the keys of runs that use it."""
    return digest(entries())
