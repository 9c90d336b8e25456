"""Parts of files: together they are the file, and what is read of them has the numbers it has in the whole."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyclinic.corpus.engine import parts
from polyclinic.corpus.engine.parts import Piece, pieces, unchanged
from polyclinic.corpus.read import readers
from polyclinic.runs import sha256_file

lines = st.lists(st.sampled_from([b"", b"{}", b'{"a": 1}', b'{"long": "' + b"x" * 60 + b'"}', b" \r"]), max_size=30)


@given(given=lines, end=st.booleans(), size=st.integers(1, 200), block=st.integers(1, 64))
def test_cut_lines_are_the_file_again_and_begin_at_their_numbers(
    given: list[bytes], end: bool, size: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = b"\n".join(given) + b"\n" * end
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "BLOCK_BYTES", block)
        found = list(parts._cut_lines(path, size))
    places = [piece.part for piece in found if piece.part is not None]
    assert [p.start for p in places] + [len(data)] == [0] * bool(data) + [p.end for p in places] or not data
    assert all(a.end == b.start for a, b in pairwise(places))
    for piece in found:
        assert piece.part is not None
        own = data[piece.part.start : piece.part.end]
        assert (piece.size, piece.sha256) == (len(own), hashlib.sha256(own).hexdigest())
        assert piece.part.first_line == 1 + data[: piece.part.start].count(b"\n")
        assert data[: piece.part.start].endswith(b"\n") or not piece.part.start
        assert own.rstrip(b"\n").count(b"\n") == 0 or len(own[: own.rstrip(b"\n").rfind(b"\n") + 1]) < size
    rows = [row for piece in found for row in readers.rows(path, piece.part)]
    if rows:  # a file without records is an error
        assert rows == list(readers.rows(path))


def cut(path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Piece, ...]:
    monkeypatch.setattr(parts, "PART_BYTES", size)
    return pieces(path)


def test_row_groups_are_read_once_each_with_the_numbers_of_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"id": str(i), "text": "x" * (i % 7)} for i in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=130)
    found = cut(path, 1500, monkeypatch)
    assert len(found) > 3
    assert {piece.sha256 for piece in found} == {sha256_file(path)}
    read = [row for piece in found for row in readers.rows(path, piece.part)]
    assert read == list(readers.rows(path))
    assert [row.where for row in read] == [f"a.parquet:{i}" for i in range(1, 3001)]


def test_a_line_that_is_broken_is_named_by_its_number_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(json.dumps({"i": i}).encode() + b"\n" for i in range(100)) + b"{broken\n")
    found = cut(path, 200, monkeypatch)
    assert len(found) > 3
    assert found[-1].part is not None
    *good, broken = readers.rows(path, found[-1].part)
    assert isinstance(broken, readers.Bad)
    assert broken.number == 101
    assert [row.number for row in good] == list(range(found[-1].part.first_line, 101))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz", "a.csv"])
def test_small_and_other_files_are_one_piece_whatever_they_hold(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"no line end, and no Parquet")
    for size in (10, 1000):
        assert cut(path, size, monkeypatch) == (Piece(None, 27, sha256_file(path)),)
    path.write_bytes(b"")
    assert pieces(path) == (Piece(None, 0, hashlib.sha256().hexdigest()),)


def test_a_file_is_read_once_as_long_as_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(parts, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    first = pieces(path)
    assert pieces(path) == first
    assert read == [path]
    path.write_bytes(b"{}\n{}\n")
    assert pieces(path) != first
    assert read == [path, path]


def test_a_change_is_seen_in_the_part_that_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b'{"i": %03d}\n' % i for i in range(100)))
    found = cut(path, 300, monkeypatch)
    assert all(unchanged(path, piece) for piece in found)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert [unchanged(path, piece) for piece in found] == [True] * (len(found) - 1) + [False]
    path.unlink()
    assert not any(unchanged(path, piece) for piece in found)
