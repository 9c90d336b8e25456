"""Which texts are read: translations first, the same whatever the order of files, and enough of each language."""

from collections.abc import Sequence

import numpy as np
import pytest

from polyclinic.analyse.depth import sample as sampling
from polyclinic.analyse.depth.sample import BUCKETS, bucket, sample
from polyclinic.errors import DataError
from polyclinic.records import Document, Turn


def document(code: str, group: str, text: str = "some words") -> Document:
    return Document(f"{code}:{group}", code, "s", "CC0-1.0", group, (Turn("text", text),))


def many(code: str, groups: Sequence[str]) -> list[Document]:
    return [document(code, group) for group in groups]


GROUPS = [str(i) for i in range(40)]


def test_translations_come_before_texts_of_one_language() -> None:
    documents = [*many("en", [f"only{i}" for i in range(100)]), *many("en", GROUPS[:20]), *many("fr", GROUPS)]
    chosen = sample(documents, 20)
    assert {d.group for d in chosen if d.language == "en"} == set(GROUPS[:20])
    assert {d.group for d in chosen if d.language == "fr"} == set(GROUPS[:20])


def test_the_order_of_documents_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "POOL", 30)
    documents = [*many("en", GROUPS), *many("fr", GROUPS)]
    expected = sample(documents, 16)
    assert len(expected) == 32
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(documents))
        assert sample([documents[i] for i in order], 16) == expected


def test_a_pool_holds_the_same_groups_in_every_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "POOL", 20)
    chosen = sample([*many("en", GROUPS), *many("fr", GROUPS)], 100)
    one, two = ({d.group for d in chosen if d.language == code} for code in ("en", "fr"))
    assert one == two
    assert len(one) == 20


def test_a_text_that_stands_twice_is_read_once_and_an_empty_one_not_at_all() -> None:
    documents = [*many("en", GROUPS), *many("en", GROUPS), document("en", "x", "  "), *many("fr", GROUPS)]
    assert len(sample(documents, 100)) == 2 * len(GROUPS)


def test_long_texts_are_cut_over_their_turns() -> None:
    long = document("en", "0")
    long = Document(*(getattr(long, f) for f in ("id", "language", "source", "licence", "group")), (
        Turn("user", "a" * 3000), Turn("assistant", "b" * 3000), Turn("user", "c")))  # fmt: skip
    chosen = sample([long, *many("en", GROUPS[1:]), *many("fr", GROUPS)], 100)
    (found,) = (d for d in chosen if d.group == "0" and d.language == "en")
    assert [len(turn.content) for turn in found.turns] == [3000, sampling.MAX_CHARACTERS - 3000]


def test_buckets_are_those_of_groups_and_about_even() -> None:
    counts = [0] * BUCKETS
    for i in range(3200):
        counts[bucket(f"group {i}")] += 1
    assert min(counts) > 60
    assert max(counts) < 150


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        ([], "text in no language"),
        (many("en", GROUPS), "text in one language"),
        ([*many("en", GROUPS), *many("fr", GROUPS[:3])], "too little text in 'fr' .3 documents.; read 16 or more"),
    ],
)
def test_too_little_text_is_one_line(documents: list[Document], what: str) -> None:
    with pytest.raises(DataError, match=what):
        sample(documents, 100)
