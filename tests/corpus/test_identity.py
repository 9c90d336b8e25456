"""One name, one text: clashes are found in any order, over any number of files, and equal texts are none."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyclinic.corpus.read.identity import REASON, check_identities, mark
from polyclinic.corpus.read.read import LINE, batch
from polyclinic.errors import DataError
from polyclinic.records import Document, Turn

FILES = ["a/x.jsonl", "b/x.jsonl"]
Records = list[tuple[str, str, str, str, bool]]


def marks(records: Records) -> tuple[pa.Table, np.ndarray]:
    """Return the marks of records (source, language, id, text, standing): the first half is of the first file."""
    held = [Document(i, code, s, "MIT", i, (Turn("text", text),)) for s, code, i, text, _ in records]
    table = pa.Table.from_batches([mark(batch(held, list(range(1, len(held) + 1)))).batch])
    inputs = [int(row >= len(records) / 2) for row in range(len(records))]
    return table.append_column("input", pa.array(inputs, pa.int32())), np.array([r[4] for r in records], dtype=bool)


records = st.lists(
    st.tuples(
        *(st.sampled_from("ab") for _ in range(2)), st.sampled_from("123"), st.sampled_from("xyz"), st.booleans()
    ),
    min_size=1,
    max_size=25,
)


@given(records)
def test_a_row_goes_if_an_earlier_one_has_its_name_and_another_text(found: Records) -> None:
    table, standing = marks(found)
    first: dict[tuple[str, ...], str] = {}
    expected = {}
    for row, (*name, text, stands) in enumerate(found):
        if stands and first.setdefault(tuple(name), text) != text:
            expected[row] = REASON
    assert check_identities(table, standing, FILES, strict=False) == expected


def test_the_first_clash_is_an_error_that_names_both_places() -> None:
    found = [
        ("s", "en", "1", "x", True),
        ("s", "fr", "1", "y", True),
        ("s", "en", "1", "x", True),
        ("s", "en", "1", "z", True),
    ]
    table, standing = marks(found)
    with pytest.raises(DataError, match=r"^b/x\.jsonl:4: has the id of another text, at a/x\.jsonl:1; .*fields: "):
        check_identities(table, standing, FILES, strict=True)
    assert check_identities(table.slice(0, 3), standing[:3], FILES, strict=True) == {}
    assert table.column(LINE).to_pylist() == [1, 2, 3, 4]
