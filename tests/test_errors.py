"""One tree of errors: codes a shell sees, and one line a person reads."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic import errors
from polyclinic.errors import PolyclinicError

CODES = {  # design.md, section 2
    "PolyclinicError": 1,
    "UsageError": 2,
    "RecipeError": 3,
    "DataError": 3,
    "UnknownLanguageError": 3,
    "CheckpointError": 4,
    "ProofError": 4,
    "DiskError": 5,
    "BusyError": 6,
    "MissingDependencyError": 6,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_every_error_has_the_exit_code_of_the_design(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_every_error_is_of_the_one_tree() -> None:
    kinds = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, Exception)}
    assert set(kinds) == set(CODES)
    assert all(issubclass(c, PolyclinicError) for c in kinds.values())


@given(st.text(), st.text(), st.text())
@settings(deadline=None, max_examples=50)
def test_a_message_is_one_line_of_where_what_and_try(where: str, what: str, try_: str) -> None:
    message = str(PolyclinicError(where, what, try_))
    assert len(message.splitlines()) == 1
    assert message.split() == f"{where}: {what}; {try_}".split()


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    for name in CODES:
        sent = getattr(errors, name)("here", "what", "try")
        back = pickle.loads(pickle.dumps(sent))  # noqa: S301 - our own bytes
        assert (type(back), str(back)) == (type(sent), "here: what; try")
