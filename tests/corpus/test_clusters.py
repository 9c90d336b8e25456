"""Near duplicates: found through bands, verified, and the same whatever order or files the rows come in."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.dedup import dedup
from polyclinic.corpus.dedup.clusters import ROWS, WIDTH, components, nearest, similarity
from polyclinic.corpus.units import plain, tokens
from polyclinic.corpus_section import DedupSection

SECTION = DedupSection()
WORDS = [f"w{i}" for i in range(400)]


def text_of(seed: int, size: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=size))  # noqa: S311


def with_edits(text: str, places: int, seed: int = 1) -> str:
    words = text.split()
    for place in random.Random(seed).sample(range(len(words)), places):  # noqa: S311
        words[place] = "edit"
    return " ".join(words)


def marks_of(rows: list[tuple[str, str, str]], parts: int = 1) -> pa.Table:
    """Return the marks of (id, language, text), in so many batches."""
    tables = []
    for part in np.array_split(np.arange(len(rows)), parts):
        found = [rows[i] for i in part]
        batch = pa.RecordBatch.from_pylist(
            [
                {"id": i, "language": code, "source": "s", "turns": [{"role": "text", "content": text}]}
                for i, code, text in found
            ],
            schema=pa.schema(
                [
                    *((n, pa.string()) for n in ("id", "language", "source")),
                    ("turns", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
                ]
            ),
        )
        tables.append(dedup.mark(batch, SECTION).batch.drop_columns(["turns"]))
    return pa.Table.from_batches(tables)


def gone(rows: list[tuple[str, str, str]], parts: int = 1, standing: list[bool] | None = None) -> dict[str, str]:
    marks = marks_of(rows, parts)
    mask = np.array(standing if standing is not None else [True] * len(rows))
    ids = marks.column("id").to_pylist()
    return {ids[row]: reason for row, reason in dedup.duplicates(marks, mask, SECTION).items()}


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.sampled_from(["en", "fr"])), min_size=2, max_size=14),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
)
def test_neither_order_nor_shards_change_what_goes(
    chosen: list[tuple[int, int, str]], chance: random.Random, parts: int
) -> None:
    rows = [(f"d{n:02d}", code, with_edits(text_of(seed), edits, n)) for n, (seed, edits, code) in enumerate(chosen)]
    mixed = list(rows)
    chance.shuffle(mixed)
    assert gone(rows) == gone(mixed, parts)


def test_the_smallest_id_of_a_cluster_stays_and_each_language_is_for_itself() -> None:
    text = text_of(1)
    rows = [("c", "en", with_edits(text, 2)), ("a", "en", text), ("b", "en", text.upper()), ("d", "fr", text)]
    assert gone(rows) == {"c": "near duplicate", "b": "exact duplicate"}


def test_the_same_text_in_other_languages_does_not_come_between() -> None:
    text = text_of(1)
    rows = [(f"d{n}", code, with_edits(text, 2, n)) for n, code in enumerate(["en", "fr", "de", "fr", "en", "de"])]
    assert set(gone(rows)) == {"d3", "d4", "d5"}
    signed = np.tile(np.arange(WIDTH, dtype=np.uint8), (6, 1))
    assert nearest(signed, np.array([0, 1, 2, 1, 0, 2]), 0.5).tolist() == [0, 1, 2, 1, 0, 2]


def test_a_row_that_no_longer_stands_takes_no_other_with_it() -> None:
    rows = [("a", "en", text_of(1)), ("b", "en", with_edits(text_of(1), 2)), ("c", "en", text_of(1))]
    assert gone(rows, standing=[False, True, True]) == {"c": "near duplicate"}


def test_a_chain_is_one_cluster() -> None:
    base = text_of(3, 200)
    rows = [("a", "en", base)]
    for name in "bcd":
        rows.append((name, "en", with_edits(rows[-1][2], 6, ord(name))))
    assert set(gone(rows)) == {"b", "c", "d"}


@pytest.mark.parametrize("size", [4, 19])
def test_short_texts_are_compared_exactly_only(size: int) -> None:
    text = text_of(5, size)
    rows = [("a", "en", text), ("b", "en", with_edits(text, 1)), ("c", "en", f" {text.upper()} ")]
    assert gone(rows) == {"c": "exact duplicate"}


@pytest.mark.parametrize("code", ["th", "zh", "ja", "lo"])
def test_text_without_spaces_is_compared_by_characters(code: str) -> None:
    first = {"th": 0x0E01, "zh": 0x4E00, "ja": 0x3041, "lo": 0x0EB0}[code]
    chance = random.Random(2)  # noqa: S311
    letters = [chr(first + chance.randrange(8 if code == "lo" else 40)) for _ in range(300)]
    copy = list(letters)
    for place in (20, 150, 280):
        copy[place] = chr(first + 41 if code != "lo" else 0x0EC4)
    rows = [("a", code, "".join(letters)), ("b", code, "".join(copy)), ("c", code, "".join(reversed(letters)))]
    assert gone(rows) == {"b": "near duplicate"}
    assert tokens([plain("".join(letters))]).sizes()[0] >= 290


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_estimate_is_near_the_exact_jaccard_index(share: float) -> None:
    size = 600
    common = round(share * 2 * size / (1 + share))
    one = [f"x{i}" for i in range(size)]
    other = one[:common] + [f"y{i}" for i in range(size - common)]

    def shingles(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    a, b = shingles(one), shingles(other)
    exact = len(a & b) / len(a | b)
    signed = dedup.signatures([" ".join(one), " ".join(other)], 20)
    array = np.array([list(s) for s in signed.to_pylist()], dtype=np.uint8)
    found = similarity(array, np.array([0]), np.array([1]))[0]
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / WIDTH) + 0.01


def test_rows_that_share_a_band_but_little_else_are_not_joined() -> None:
    chance = np.random.default_rng(0)
    signed = chance.integers(0, 256, (3, WIDTH), dtype=np.uint8)
    signed[1, :ROWS] = signed[0, :ROWS]
    signed[2] = signed[1]
    signed[2, -3:] += 1
    assert nearest(signed, np.zeros(3, dtype=np.int64), 0.5).tolist() == [0, 1, 1]
    assert nearest(signed, np.array([0, 1, 2]), 0.5).tolist() == [0, 1, 2]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_those_of_a_search(given_graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = given_graph
    expected = []
    for node in range(count):
        reached = {node}
        while more := {b for e in edges for a, b in (e, e[::-1]) if a in reached} - reached:
            reached |= more
        expected.append(min(reached))
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2)
    assert components(count, pairs[:, 0], pairs[:, 1]).tolist() == expected
