"""Duplicates and held-out shares: decided by what a document says and by its group, by nothing else."""

from math import sqrt

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rensa import RMinHash

from polyclinic.corpus.dedup.clusters import WIDTH
from polyclinic.corpus.dedup.dedup import (
    SEED,
    SHINGLE,
    evenly_spaced,
    fingerprint,
    is_held_out,
    is_validation,
    signatures,
)
from polyclinic.corpus.units import tokens, windows


def print_of(text: str, language: str = "en") -> bytes:
    return fingerprint(language, text)


@pytest.mark.parametrize(
    "variant",
    [
        "TAKE 5 MG WITH WATER",
        "take  5\tmg\nwith water ",
        "ｔａｋｅ ５ ｍｇ ｗｉｔｈ ｗａｔｅｒ",
        "Take\u00a05\u3000mg with water",
    ],
    ids=["case", "space", "width", "kind of space"],
)
def test_case_space_and_width_do_not_make_another_text(variant: str) -> None:
    assert print_of(variant) == print_of("Take 5 mg with water")


@pytest.mark.parametrize("other", ["Take 50 mg with water", "Take 5 µg with water", "Take 5 mg without water"])
def test_another_dose_or_word_makes_another_text(other: str) -> None:
    assert print_of(other) != print_of("Take 5 mg with water")


def test_the_same_text_in_another_language_is_no_duplicate() -> None:
    assert print_of("Malaria", "es") != print_of("Malaria", "pt")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text("aBéÜßعप漢9", min_size=1), min_size=1), st.lists(st.text(" \n\t\u00a0", min_size=1), min_size=1)
)
def test_any_spacing_and_case_of_the_same_words_is_the_same_text(words: list[str], spaces: list[str]) -> None:
    spaced = "".join(word.upper() + spaces[i % len(spaces)] for i, word in enumerate(words))
    assert print_of(spaced) == print_of(" ".join(words))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_the_share_held_out_is_near_the_one_asked(share: float) -> None:
    num_groups = 5000
    taken = sum(is_held_out(f"group-{i}", share) for i in range(num_groups))
    five_sigma = 5 * sqrt(share * (1 - share) * num_groups)
    assert abs(taken - share * num_groups) < five_sigma


def test_what_is_held_out_says_nothing_of_what_is_kept_for_validation() -> None:
    groups = [f"group-{i}" for i in range(5000)]
    held_out = [group for group in groups if is_held_out(group, 0.3)]
    both = sum(is_validation(group, 0.2) for group in held_out)
    assert abs(both - 0.2 * len(held_out)) < 5 * sqrt(0.2 * 0.8 * len(held_out))
    assert not any(is_validation(group, 0.0) for group in groups)
    assert all(is_validation(group, 1.0) for group in groups)


@settings(deadline=None, max_examples=50)
@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_groups(group: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert is_held_out(group, high) or not is_held_out(group, low)
    assert is_held_out(group, 1.0)
    assert not is_held_out(group, 0.0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab é\u200c\u3000\xa0\t\n\x1c\u2028ไ"), max_size=12))
@example(" a")
@example("a ")
@example("a  b")
@example("a\nb")
def test_a_text_is_spaced_evenly_as_by_its_words(text: str) -> None:
    assert evenly_spaced(text) == " ".join(text.split())


def test_all_white_space_but_the_space_is_not_printable() -> None:
    assert [c for c in map(chr, range(0x110000)) if c.isspace() and c.isprintable()] == [" "]


def test_signatures_are_the_low_bytes_of_minhash_values_and_null_for_short_texts() -> None:
    plains = ["one two three four five six", "one two", "", "six five four three two one zero"]
    shingles = windows(tokens(plains), SHINGLE)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(shingles.hashes, shingles.offsets, WIDTH, SEED).to_rows()
    low = [bytes(value % 256 for value in row) for row in rows]
    assert signatures(plains, shortest=6).to_pylist() == [low[0], None, None, low[3]]
    assert signatures([], shortest=6).to_pylist() == []
