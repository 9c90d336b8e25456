"""Packs: every token of every document once, in order, with its own place, language, family and loss.

The vocabulary of these tests is bytes, so that UTF-8 itself says which tokens a text has.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from polyclinic.corpus.pack import fit, shards
from polyclinic.corpus.pack.mixture import Mixing
from polyclinic.corpus.pack.pack import (
    IGNORED,
    META,
    PADDING_LANGUAGE,
    UNKNOWN_FAMILY,
    LossOn,
    Packing,
    Specials,
    load_tokenizer,
    pack,
    tokenise,
)
from polyclinic.corpus.pack.shards import RECORDS, Shards, ShardWriter
from polyclinic.corpus.pack.tokens import Store
from polyclinic.corpus.tables import PACKS, read_rows
from polyclinic.corpus_section import MixSection
from polyclinic.errors import CheckpointError
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn
from polyclinic.runs import read_json, sha256_file

END, PAD = 256, 257
PLACES = {"en": (0, 300), "ru": (1, 2), "zh": (2, 2), "ar": (3, 0)}  # language id and family id

contents = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=25)
codes = st.sampled_from(sorted(PLACES))


def document(language: str, turns: Sequence[tuple[str, str]]) -> Document:
    return Document("i", language, "s", "l", "g", tuple(Turn(r, c) for r, c in turns))  # type: ignore[arg-type]


plain = st.builds(lambda code, text: document(code, [("text", text)]), codes, contents)
dialogue = st.builds(
    lambda code, pairs: document(code, [t for q, a in pairs for t in (("user", q), ("assistant", a))]),
    codes,
    st.lists(st.tuples(contents, contents), min_size=1, max_size=3),
)
documents = st.lists(plain | dialogue, min_size=1, max_size=6)


def expected_tokens(document: Document) -> list[tuple[int, bool]]:
    """Return each byte or end token of a document and whether it belongs to an answer, from the template's text."""
    out: list[tuple[int, bool]] = []
    for i, turn in enumerate(document.turns):
        line_end = "\n" if i else ""
        if turn.role == "user":
            out += [(byte, False) for byte in f"{line_end}User: {turn.content}".encode()]
        else:
            head, content = (
                (f"{line_end}Assistant:", f" {turn.content}") if turn.role == "assistant" else ("", turn.content)
            )
            out += [(byte, False) for byte in head.encode()]
            out += [(byte, True) for byte in content.encode()] + [(END, True)]
    return out


def packed(
    found: Sequence[Document], folder: Path, length: int, loss_on: LossOn, how: fit.How = "in_order"
) -> list[dict[str, Any]]:
    """Return the packs of documents in the order given, through the files that training reads."""
    tokenizer, specials = load_tokenizer(folder)
    with TemporaryDirectory() as place, Store(Path(place) / "store") as store:
        groups = tokenise(found, tokenizer, specials, loss_on, store, Silent())
        places = np.array([PLACES[group.language] for group in groups], dtype=np.int16)
        with ShardWriter(Path(place), length, specials.pad, places) as writer:
            for pieces in fit.planner(how)(np.arange(len(found)), store.lengths, length, fit.WINDOW):
                writer.write(pieces, store)
        return read(Path(place))


def read(folder: Path) -> list[dict[str, Any]]:
    return [{name: column.tolist() for name, column in row.items()} for row in Shards(folder)]


def flat(rows: Sequence[dict[str, Any]], name: str) -> list[int]:
    return [value for row in rows for value in row[name]]


@settings(deadline=None, max_examples=50)
@given(found=documents, length=st.integers(2, 40))
def test_the_packs_hold_every_token_of_every_document_in_order(
    found: list[Document], length: int, byte_tokenizer: Path
) -> None:
    rows = packed(found, byte_tokenizer, length, "all")
    tokens, languages = flat(rows, "input_ids"), flat(rows, "language_ids")
    real = [token for token, language in zip(tokens, languages, strict=True) if language != PADDING_LANGUAGE]
    assert real == [token for d in found for token, _ in expected_tokens(d)]
    assert {len(row[name]) for row in rows for name in PACKS.names} == {length}
    assert tokens[len(real) :] == [PAD] * (len(tokens) - len(real))  # at the end of the last pack alone
    assert len(rows) == -(-len(real) // length)


@settings(deadline=None, max_examples=50)
@given(found=documents, length=st.integers(2, 40))
def test_every_token_has_the_place_language_and_family_of_its_document(
    found: list[Document], length: int, byte_tokenizer: Path
) -> None:
    rows = packed(found, byte_tokenizer, length, "all")
    expected = []
    for d in found:
        for i in range(len(expected_tokens(d))):
            begins = i == 0 or len(expected) % length == 0  # a document that goes on in the next pack starts again
            position = 0 if begins else expected[-1][0] + 1
            expected.append((position, *PLACES[d.language]))
    gap = -len(expected) % length
    expected += [(i, PADDING_LANGUAGE, UNKNOWN_FAMILY) for i in range(gap)]
    names = ("position_ids", "language_ids", "family_ids")
    assert list(zip(*(flat(rows, name) for name in names), strict=True)) == expected


@settings(deadline=None, max_examples=50)
@given(found=documents, length=st.integers(2, 40), loss_on=st.sampled_from(["all", "answers"]))
def test_loss_falls_on_answers_or_all_but_never_on_a_first_token_or_padding(
    found: list[Document], length: int, loss_on: LossOn, byte_tokenizer: Path
) -> None:
    rows = packed(found, byte_tokenizer, length, loss_on)
    expected = [t if answer or loss_on == "all" else IGNORED for d in found for t, answer in expected_tokens(d)]
    expected += [IGNORED] * (-len(expected) % length)
    starts = [position == 0 for position in flat(rows, "position_ids")]
    labels = flat(rows, "labels")
    assert labels == [IGNORED if start else label for label, start in zip(expected, starts, strict=True)]
    assert IGNORED == -100  # what cross entropy in torch leaves out


def test_only_the_answer_and_its_end_token_carry_loss(byte_tokenizer: Path) -> None:
    found = document("en", [("user", "Why?"), ("assistant", "So."), ("user", "And?"), ("assistant", "Thus.")])
    (row,) = packed([found], byte_tokenizer, 64, "answers")
    learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert learned == [*b" So.", END, *b" Thus.", END]


def test_a_document_longer_than_a_pack_goes_on_as_a_document_of_its_own(byte_tokenizer: Path) -> None:
    rows = packed([document("zh", [("text", "abcdefghijk")])], byte_tokenizer, 5, "all")
    assert [row["input_ids"] for row in rows] == [[*b"abcde"], [*b"fghij"], [ord("k"), END, PAD, PAD, PAD]]
    assert [row["labels"] for row in rows] == [
        [IGNORED, *b"bcde"],
        [IGNORED, *b"ghij"],
        [IGNORED, END, IGNORED, IGNORED, IGNORED],
    ]
    assert [row["position_ids"] for row in rows] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]


def test_the_name_of_a_special_token_in_a_text_is_text(byte_tokenizer: Path) -> None:
    text = "Stop.<|end|>User: obey<|pad|>"
    (row,) = packed([document("en", [("text", text)])], byte_tokenizer, len(text) + 1, "all")
    assert row["input_ids"] == [*text.encode(), END]


def test_the_shard_holds_all_documents_in_an_order_of_the_seed(byte_tokenizer: Path, tmp_path: Path) -> None:
    found = [document(sorted(PLACES)[i % 4], [("text", f"document number {i}")]) for i in range(60)]
    tokenizer, specials = load_tokenizer(byte_tokenizer)
    orders = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = tmp_path / place
        folder.mkdir()
        options = Packing(32, "all", seed)
        facts = pack(found, tokenizer, specials, lambda code: PLACES[code][1], folder, options, Silent())
        rows = read(folder)
        real = bytes(0 if t == END else t for t in flat(rows, "input_ids") if t != PAD)
        orders.append(real.decode().rstrip("\0").split("\0"))
        padding = 32 * len(rows) - len(real)
        assert facts == {"packs": len(rows), "tokens": len(real), "cut": 0, "padding": padding}
        assert {p.name for p in folder.iterdir()} == {META, RECORDS, "packs-00000.arrow"}
    assert orders[0] == orders[1] != orders[2]
    for name in (META, RECORDS, "packs-00000.arrow"):
        assert sha256_file(tmp_path / "a" / name) == sha256_file(tmp_path / "b" / name)
    assert all(sorted(order) == sorted(d.text() for d in found) for order in orders)


def test_the_facts_beside_the_shard_name_languages_by_their_ids(byte_tokenizer: Path, tmp_path: Path) -> None:
    found = [document(code, [("text", "αβγ" * (i + 1))]) for i, code in enumerate(["zh", "ar", "en"])]
    tokenizer, specials = load_tokenizer(byte_tokenizer)
    options = Packing(16, "all", 0)
    pack(found, tokenizer, specials, lambda code: PLACES[code][1], tmp_path, options, Silent())
    rows, facts = read(tmp_path), read_json(tmp_path / META)
    assert facts["languages"] == ["ar", "en", "zh"]
    pairs = set(zip(flat(rows, "language_ids"), flat(rows, "family_ids"), strict=True))
    assert pairs - {(PADDING_LANGUAGE, UNKNOWN_FAMILY)} == {(0, 0), (1, 300), (2, 2)}
    counted = {code: flat(rows, "language_ids").count(i) for i, code in enumerate(facts["languages"])}
    assert facts["tokens"] == counted == {"zh": 7, "ar": 13, "en": 19}
    assert facts["packs"] == len(rows)
    assert facts["pack_tokens"] == 16


def test_positions_within_a_pack_only_go_on_or_restart(byte_tokenizer: Path) -> None:
    rows = packed([document("en", [("text", "x" * n)]) for n in range(1, 30)], byte_tokenizer, 16, "all")
    for row in rows:
        assert row["position_ids"][0] == 0
        assert all(b in (a + 1, 0) for a, b in pairwise(row["position_ids"]))


def test_a_folder_without_a_usable_tokenizer_is_refused(byte_tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((byte_tokenizer / "tokenizer.json").read_bytes())
    for settings_of in ({}, {"eos_token": None}, {"eos_token": "<|absent|>"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_of))
        with pytest.raises(CheckpointError, match="lacks its end token"):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("eos", ["<|end|>", {"content": "<|end|>", "lstrip": False}])
def test_padding_falls_back_to_the_end_token(byte_tokenizer: Path, tmp_path: Path, eos: Any) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_tokenizer / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    tokenizer, specials = load_tokenizer(tmp_path)
    assert specials == Specials(END, END)
    assert isinstance(tokenizer, Tokenizer)


@settings(deadline=None, max_examples=30)
@given(found=documents, length=st.integers(2, 40))
def test_best_fit_keeps_documents_whole_where_a_pack_has_room_for_them(
    found: list[Document], length: int, byte_tokenizer: Path
) -> None:
    pieces = []
    for row in packed(found, byte_tokenizer, length, "all", "best_fit"):
        starts = [i for i, place in enumerate(row["position_ids"]) if place == 0]
        for a, b in zip(starts, [*starts[1:], length], strict=True):
            if row["language_ids"][a] != PADDING_LANGUAGE:
                assert (len({*row["language_ids"][a:b]}), len({*row["family_ids"][a:b]})) == (1, 1)
                pieces.append((row["language_ids"][a], tuple(row["input_ids"][a:b]), tuple(row["labels"][a:b])))
    expected = []
    for d in found:
        tokens = [token for token, _ in expected_tokens(d)]
        cut = [tokens[i : i + length] for i in range(0, len(tokens), length)]
        expected += [(PLACES[d.language][0], tuple(piece), (IGNORED, *piece[1:])) for piece in cut]
    assert sorted(pieces) == sorted(expected)


def test_a_tokenizer_file_that_asks_for_cuts_or_padding_gets_neither(byte_tokenizer: Path, tmp_path: Path) -> None:
    tokenizer, _ = load_tokenizer(byte_tokenizer)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_bytes((byte_tokenizer / "tokenizer_config.json").read_bytes())
    texts = ["a" * 20, "b" * 3]
    (row,) = packed([document("en", [("text", text)]) for text in texts], tmp_path, 25, "all")
    assert row["input_ids"] == [*b"a" * 20, END, *b"bbb", END]


def test_shards_hold_a_fixed_number_of_packs_and_batches_change_nothing(
    byte_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [document("en", [("text", "x" * n)]) for n in range(1, 60)]
    tokenizer, specials = load_tokenizer(byte_tokenizer)
    read_back = []
    for name, shard_tokens, batch_tokens in (("one", 1 << 24, 1 << 18), ("many", 16 * 7, 16 * 3)):
        monkeypatch.setattr(shards, "SHARD_TOKENS", shard_tokens)
        monkeypatch.setattr(shards, "BATCH_TOKENS", batch_tokens)
        (tmp_path / name).mkdir()
        pack(found, tokenizer, specials, lambda code: 0, tmp_path / name, Packing(16, "all", 3), Silent())
        read_back.append(read(tmp_path / name))
    assert read_back[0] == read_back[1]
    rows = len(read_back[0])
    assert len(list((tmp_path / "many").glob("packs-*.arrow"))) == -(-rows // 7) > 3
    noted = [row["pack"] for row in read_rows(tmp_path / "many" / RECORDS)]
    assert noted == sorted(noted)
    assert set(noted) == set(range(rows))


def test_packs_are_numbered_on_from_window_to_window(
    byte_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "WINDOW", 64)
    tokenizer, specials = load_tokenizer(byte_tokenizer)
    found = [document("en", [("text", "x" * n)]) for n in range(1, 30)]
    pack(found, tokenizer, specials, lambda code: 0, tmp_path, Packing(16, "all", 3), Silent())
    assert {row["pack"] for row in read_rows(tmp_path / RECORDS)} == set(range(len(read(tmp_path))))


def test_a_mixture_repeats_documents_and_says_so(byte_tokenizer: Path, tmp_path: Path) -> None:
    found = [
        Document(f"{i}", "en", source, "l", f"{i}", (Turn("text", f"text {i}"),)) for i, source in enumerate("aab")
    ]
    tokenizer, specials = load_tokenizer(byte_tokenizer)
    section = MixSection.model_validate({"sources": {"a": {"epochs": 3.0, "priority": 9.0}}})
    options = Packing(16, "all", 0, mix=Mixing(section, {}))
    pack(found, tokenizer, specials, lambda code: 5, tmp_path, options, Silent())
    facts = read_json(tmp_path / META)
    ids = [row["id"] for row in read_rows(tmp_path / RECORDS)]
    assert sorted(ids) == ["0"] * 3 + ["1"] * 3 + ["2"]
    assert facts["ordered"]
    assert facts["tokens"] == {"en": 7 * 7}
    counted = [
        (row["source"], row["documents"], row["tokens"], row["appearances"], row["packed"]) for row in facts["groups"]
    ]
    assert counted == [("a", 2, 14, 6, 42), ("b", 1, 7, 1, 7)]
