"""YAML without surprises: the 1.2 core schema, and one RecipeError for everything else."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic import strict_yaml
from polyclinic.errors import DataError, RecipeError
from polyclinic.languages import all_languages

# Characters that JSON writes as they are and YAML reads as they are (no controls, no line separators).
words = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(words, trees, max_size=3))
@settings(deadline=None, max_examples=50)
def test_json_means_what_json_means(value: dict[str, Any]) -> None:
    """YAML 1.2 holds JSON, so the standard library's JSON is an independent judge."""
    found = strict_yaml.parse(json.dumps(value, ensure_ascii=False), "here")
    assert json.dumps(found) == json.dumps(value)  # as text, since True == 1 == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # https://yaml.org/spec/1.2.2/#103-core-schema
        ("null", None), ("~", None), ("", None), ("NULL", None), ("nUll", "nUll"),
        ("true", True), ("False", False), ("TRUE", True), ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("y", "y"),
        ("0", 0), ("010", 10), ("-19", -19), ("+12", 12), ("0o14", 12), ("0x3A", 58), ("1_000", "1_000"),
        ("1e-4", 1e-4), ("1e3", 1000.0), ("-2E+05", -2e5), ("0.", 0.0), (".5", 0.5), ("12e03", 12e3), ("1e", "1e"),
        ("1:30", "1:30"), ("2001-12-14", "2001-12-14"), ("=", "="), ('"1"', "1"), ("'true'", "true"),
    ],
)  # fmt: skip
def test_a_scalar_follows_the_core_schema(text: str, value: object) -> None:
    found = strict_yaml.parse(f"key: {text}", "here")["key"]
    assert (type(found), found) == (type(value), value)


def test_every_language_code_survives_without_quotes() -> None:
    for code in all_languages():
        assert strict_yaml.parse(f"lang: {code}", "here") == {"lang": code}
        assert strict_yaml.parse(f"{code}: 1", "here") == {code: 1}


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert strict_yaml.parse("<<: {a: 1}", "here") == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "here:3: the key 'a' stands twice"),
        ("a: {x: 1, 'x': 2}", "here:1: the key 'x' stands twice"),
        ("a: [{x: 1, y: 1, x: 2}]", "here:1: the key 'x' stands twice"),
        ("1: a\n'1': b", "here:2: the key '1' stands twice"),
        ("a: 1\n? [b, c]\n: 2", "here:2: the key 'a list or mapping' is not text"),
        ("a: &a [x]\nb: *a", "here:2: the alias *a is not allowed"),
        ("a: !!str 1", "here:1: the tag tag:yaml.org,2002:str is not allowed"),
        ("a: !here x", "here:1: the tag !here is not allowed"),
        ("a: ! x", "here:1: the tag ! is not allowed"),
        ("a:\n\tb: 1", "here:2: found character '\\t'"),
        ("a: .inf", "here:1: .inf is not a finite number"),
        ("a: [1, -.INF]", "here:1: -.INF is not a finite number"),
        ("a: .NaN", "here:1: .NaN is not a finite number"),
        ("a: 1e999", "here:1: 1e999 is not a finite number"),
        ('a: "\\0"', "here:1: NUL and half characters"),
        ('"\\ud800": 1', "here:1: NUL and half characters"),
        ('a: "\\UFFFFFFFF"', "here: not YAML (OverflowError)"),
        ("a: " + "9" * 5000, "here: not YAML (ValueError)"),
        ("a: " + "[" * 1_000, "here: not YAML (RecursionError)"),
        ("a: \x07", "here: not YAML (ReaderError)"),
        ("a: 1\n--- \nb: 2", "here:2: but found another document"),
        ("- a", "here: not a mapping"),
        ("just words", "here: not a mapping"),
        ("# nothing", "here: not a mapping"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        strict_yaml.parse(text, "here")
    assert str(caught.value).startswith(words)


def test_a_tag_that_would_run_code_runs_none(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for tag in ("python/object/apply:os.mkdir", "python/object/new:os.mkdir", "python/name:os.mkdir"):
        with pytest.raises(RecipeError, match="tag"):
            strict_yaml.parse(f"a: !!{tag} ['{canary}']", "here")
    assert not canary.exists()


def test_an_alias_bomb_is_refused_before_it_is_built() -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 60))
    with pytest.raises(RecipeError, match="alias"):
        strict_yaml.parse("l0: &l0 x\n" + levels, "here")


@given(st.binary(max_size=80) | st.text("ab:-?[]{}&*!|>'\"%#\n\t \\~0.", max_size=40).map(str.encode))
@settings(deadline=None, max_examples=50)
def test_any_bytes_are_a_mapping_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    with suppress(RecipeError):
        assert isinstance(strict_yaml.load(path), dict)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"), (b" \n\t\n", "empty"), (b"a: \xff", "byte 3 is not UTF-8"),
        (b"\xef\xbb\xbfa: 1", "byte order mark"), ("a: 1".encode("utf-16"), "byte order mark"),
        ("a: 1".encode("utf-16-be"), "not YAML"), (b"a" * (strict_yaml.MAX_BYTES + 1), "the limit is"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_small_utf_8_text_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=words) as caught:
        strict_yaml.load(path)
    assert caught.value.where == str(path)


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * (strict_yaml.MAX_BYTES - 6))
    assert strict_yaml.load(path) == {"a": 1}


def test_the_caller_chooses_the_kind_of_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError):
            strict_yaml.read_text(path, DataError)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=50)
def test_every_finite_float_reads_back_to_the_bit(value: float) -> None:
    found = strict_yaml.parse(f"a: {value!r}", "here")["a"]
    assert isinstance(found, float)
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)
