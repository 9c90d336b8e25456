"""The grammar: no abbreviations, no second meaning, the nearest known word."""

import math
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.arguments import Once, Parser, folder, positive, rate
from polyclinic.errors import UsageError


def grammar() -> Parser:
    """Return a small grammar of every form: a flag above, a command, a group with an action."""
    parser = Parser(prog="house")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    build = commands.add_parser("build")
    build.set_defaults(parser=build)
    build.add_argument("what")
    build.add_argument("--rooms", action=Once, type=positive, required=True)
    build.add_argument("--price", action=Once, type=rate, default=1.0)
    build.add_argument("--out", action=Once, type=folder)
    garden = commands.add_parser("garden")
    garden.set_defaults(parser=garden)
    actions = garden.add_subparsers(dest="action", metavar="action", parser_class=Parser)
    water = actions.add_parser("water")
    water.set_defaults(parser=water)
    water.add_argument("--litres", action=Once, type=positive, default=1)
    return parser


def parse(line: str) -> Any:
    return grammar().parse_args(line.split())


def test_what_is_right_is_read() -> None:
    found = parse("build tower --rooms=3 --price 1e-2 --out a/b")
    assert (found.what, found.rooms, found.price, found.out) == ("tower", 3, 0.01, Path("a/b"))
    assert parse("garden water").litres == 1
    assert parse("build --rooms 3 -- --tower").what == "--tower"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("biuld", "house: unknown command 'biuld'; did you mean 'build'?"),
        ("xyz", "house: unknown command 'xyz'; one of: build, garden"),
        ("garden watre", "house garden: unknown action 'watre'; did you mean 'water'?"),
        ("--versoin", "house: unknown argument '--versoin'; did you mean --version?"),
        ("build x --room 3", "house build: unknown argument '--room'; did you mean --rooms?"),
        ("build x --romms=3", "house build: unknown argument '--romms=3'; did you mean --rooms?"),
        ("build x -rooms 3", "house build: unknown argument '-rooms'; did you mean --rooms?"),
        ("build x --rooms 3 --zzz", "house build: unknown argument '--zzz'; see house build --help"),
        ("build x y --rooms 3", "house build: unknown argument 'y'; see house build --help"),
        ("garden water --liters 2", "house garden water: unknown argument '--liters'; did you mean --litres?"),
        ("build x", "house build: the following arguments are required: --rooms; see house build --help"),
        ("build x --rooms", "house build: argument --rooms: expected one argument; see house build --help"),
        ("build x --rooms 3 --rooms 4", "house build: --rooms stands twice; give it once"),
        ("build x --rooms 3 --rooms 3", "house build: --rooms stands twice; give it once"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_try(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert str(caught.value) == message


@pytest.mark.parametrize("option", ["--rooms", "--price", "--out", "--litres", "--version"])
def test_no_option_can_be_abbreviated(option: str) -> None:
    line = {"--litres": "garden water ", "--version": ""}.get(option, "build x --rooms=1 ")
    for end in range(3, len(option)):
        with pytest.raises(UsageError, match="unknown argument"):
            parse(f"{line}{option[:end]}=1")


def test_an_argument_that_is_not_utf_8_is_refused_before_it_means_anything() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        grammar().parse_args(["build", b"\xff".decode("utf-8", "surrogateescape")])


@given(st.integers())
@settings(deadline=None, max_examples=50)
def test_a_count_is_a_whole_number_of_at_least_one(value: int) -> None:
    if value >= 1:
        assert positive(str(value)) == positive(f"+{value}") == value
    else:
        with pytest.raises(ArgumentTypeError, match="at least 1"):
            positive(str(value))


@pytest.mark.parametrize("text", ["", " ", "abc", "1.0", "1e3", "nan", "1_0", "\u00b2", "+-1", "--1", "0x1"])
def test_what_is_no_whole_number_is_no_count(text: str) -> None:
    with pytest.raises((ArgumentTypeError, ValueError)):
        positive(text)


@given(st.floats())
@settings(deadline=None, max_examples=50)
def test_a_rate_is_finite_and_above_zero(value: float) -> None:
    if math.isfinite(value) and value > 0:
        assert rate(repr(value)) == value
    else:
        with pytest.raises(ArgumentTypeError, match="above 0"):
            rate(repr(value))


@pytest.mark.parametrize("text", ["abc", "", "1,5", "NaN", "-inf", "1e999"])
def test_what_is_no_finite_number_is_no_rate(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="above 0"):
        rate(text)


def test_no_name_is_not_the_working_folder() -> None:
    assert folder(".") == Path()
    with pytest.raises(UsageError, match="not the name of a folder"):
        grammar().parse_args(["build", "x", "--rooms", "1", "--out", ""])
