"""Every kind of file gives the same records; parts of a file give the whole; large files stay small in memory."""

import csv
import gzip
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.engine.inputs import plan
from polyclinic.corpus.read import hub
from polyclinic.corpus.read.faults import Faults
from polyclinic.corpus.read.layouts import to_document
from polyclinic.corpus.read.questions import to_question
from polyclinic.corpus.read.read import numbered, read
from polyclinic.corpus.read.readers import Bad, Part, Row, rows
from polyclinic.corpus.read.streams import MAX_LINE_BYTES, MAX_RATIO, allowance
from polyclinic.corpus_section import CorpusSection, Source
from polyclinic.errors import DataError, MissingDependencyError

RECORDS = [
    {"id": "1", "language": "fr", "text": 'Lavez "vos" mains,\nsouvent.'},
    {"id": "2", "language": "th", "text": "ล้างมือ\tบ่อยๆ"},
    {"id": "3", "language": "en", "text": "Wash."},
]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def as_csv(records: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    table = csv.DictWriter(out, list(records[0]))
    table.writeheader()
    table.writerows(records)
    return out.getvalue().encode()


def as_arrow(records: list[dict[str, Any]]) -> bytes:
    table, sink = pa.Table.from_pylist(records), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "in.jsonl": lines,
    "marked.jsonl": lambda r: b"\xef\xbb\xbf" + lines(r),
    "in.jsonl.gz": lambda r: gzip.compress(lines(r)),
    "two.jsonl.gz": lambda r: gzip.compress(lines(r[:1])) + gzip.compress(lines(r[1:])),
    "in.jsonl.zst": lambda r: pa.compress(lines(r), "zstd", asbytes=True),
    "in.json": lambda r: json.dumps(r, indent=1).encode(),
    "marked.json": lambda r: b"\xef\xbb\xbf " + json.dumps(r, ensure_ascii=False).encode(),
    "in.csv": as_csv,
    "marked.CSV": lambda r: b"\xef\xbb\xbf" + as_csv(r),
    "in.csv.gz": lambda r: gzip.compress(as_csv(r)),
    "in.arrow": as_arrow,
}


def values(path: Path, **other: Any) -> list[dict[str, Any]]:
    found = list(rows(path, **other))
    assert all(isinstance(row, Row) for row in found)
    return [row.values for row in found if isinstance(row, Row)]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_records(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name](RECORDS))
    assert values(tmp_path / name) == RECORDS


def test_tab_separated_cells_hold_quotes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_bytes(b'language\ttext\nen\t"5 mg" a day\nen\tit\'s "so\n')
    assert [v["text"] for v in values(tmp_path / "in.tsv")] == ['"5 mg" a day', "it's \"so"]


def test_a_cell_may_go_over_lines_and_the_record_is_named_by_its_first(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'language,text\nen,"one\ntwo"\nen,three\n')
    assert [(row.number, row.values["text"]) for row in rows(tmp_path / "in.csv") if isinstance(row, Row)] == [
        (2, "one\ntwo"),
        (4, "three"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,a\n1,2\n", "in.csv:1: the header"),
        (b"a,\n1,2\n", "in.csv:1: the header"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "in.csv:3: no table"),
        (b'a,b\n1,2\n"3"x,4\n', "in.csv:3: no table"),
    ],
)
def test_a_table_that_cannot_be_told_apart_is_an_error(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(rows(tmp_path / "in.csv"))


@pytest.mark.parametrize(
    ("unit", "found"),
    [
        ("file", [(1, "one\r\ntwo\n\n \nthree\n")]),
        ("paragraph", [(1, "one\r\ntwo\n"), (5, "three\n")]),
        ("line", [(1, "one\r\n"), (2, "two\n"), (5, "three\n")]),
    ],
)
def test_plain_text_is_a_document_by_file_paragraph_or_line(tmp_path: Path, unit: str, found: Any) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n \nthree\n")
    given = [(row.number, row.values["text"]) for row in rows(tmp_path / "in.txt", unit=unit) if isinstance(row, Row)]
    assert given == found
    source = Source(path="*", unit=unit, language="en", licence="MIT", source="s", url="u", category="books")
    documents = list(read(tmp_path / "in.txt", source, to_document, "sub/in.txt"))
    assert [d.id for d in documents] == [f"sub/in.txt:{number}" for number, _ in found]
    assert {(d.language, d.licence, d.source, d.url, d.category) for d in documents} == {
        ("en", "MIT", "s", "u", "books")
    }


items = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(texts=items, indent=st.none() | st.integers(0, 3), chunk=st.integers(1, 40))
def test_an_array_is_read_the_same_whatever_pieces_it_comes_in(
    texts: list[str], indent: int | None, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "in.json"
    records = [{"text": text, "n": [{"deep": len(text)}]} for text in texts]
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=bool(chunk % 2)), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyclinic.corpus.read.json_rows.CHUNK", chunk)
        assert values(path) == records


@pytest.mark.parametrize(
    "content", ['{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1},', '[{"a": 1}', '[{"a": 1}] x', "[,]"]
)
def test_what_is_no_array_is_an_error_once_it_is_noticed(tmp_path: Path, content: str) -> None:
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(DataError, match=r"in\.json"):
        list(rows(tmp_path / "in.json"))


def test_an_item_of_an_array_that_is_no_record_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(b'[{"text": "a"}, 5, {"text": "b\xff"}, {"text": "c"}]')
    found = list(rows(tmp_path / "in.json"))
    assert [type(row) for row in found] == [Row, Bad, Row, Row]
    faults = Faults(strict=False)
    kept = numbered(tmp_path / "in.json", Source(path="*", language="en"), to_document, faults)
    assert [(number, d.text()) for number, d in kept] == [(1, "a"), (4, "c")]
    assert [json.loads(note) for note in faults.lines().splitlines()] == [
        {"file": "in.json", "line": 2, "reason": "no object"},
        {"file": "in.json", "line": 3, "reason": "not UTF-8"},
    ]


@settings(deadline=None, max_examples=30)
@given(cuts=st.sets(st.integers(0, 12)), ends=st.booleans())
def test_the_parts_of_a_file_are_the_file(cuts: set[int], ends: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lines keep their numbers, blank and broken ones, too."""
    content = [b'{"text": "%d"}\n' % i for i in range(10)] + [b"\n", b"broken\n", b'{"text": "last"}' + b"\n" * ends]
    path = tmp_path_factory.mktemp("parts") / "in.jsonl"
    path.write_bytes(b"".join(content))
    edges = [0, *sorted(cuts - {0}), len(content)]
    found: list[Any] = []
    for first, last in itertools.pairwise(edges):
        start, end = (sum(map(len, content[:edge])) for edge in (first, last))
        found += rows(path, Part(start, end, first + 1))
    assert [row[:2] for row in found] == [row[:2] for row in rows(path)]
    assert [str(row[2]) for row in found] == [str(row[2]) for row in rows(path)]


def test_the_row_groups_of_a_table_are_the_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(25)}), tmp_path / "in.parquet", row_group_size=10)
    parts = [Part(0, 1, 1), Part(1, 3, 11)]
    found = [row[:3] for part in parts for row in rows(tmp_path / "in.parquet", part)]
    assert found == [row[:3] for row in rows(tmp_path / "in.parquet")]
    assert [(number, v["n"]) for _, number, v in found if isinstance(v, dict)] == [(i + 1, i) for i in range(25)]


TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu tuid="7"><tuv xml:lang="en-US"><seg>Drink <bpt i="1">&lt;b></bpt><hi>clean</hi><ept i="1"/> water.</seg></tuv>
<tuv xml:lang="fr"><seg>Buvez de l'eau propre à 20 °C.</seg></tuv></tu>
<tu><tuv lang="EN"><seg>Rest.</seg></tuv><tuv lang="fr"><seg>Repos.</seg></tuv><tuv lang="fr"><seg>Dormez.</seg></tuv>
<tuv lang="xq"><seg>???</seg></tuv></tu>
</body></tmx>"""


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1"])
def test_a_unit_of_a_translation_memory_is_a_document_in_each_language_asked(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "in.tmx").write_bytes(TMX.format(encoding=encoding).encode(encoding))
    source = Source(path="*", languages=["en", "fr"], licence="CC0-1.0")
    found = [(d.id, d.language, d.group, d.text()) for d in read(tmp_path / "in.tmx", source, to_document)]
    assert found == [
        ("7", "en", "7", "Drink clean water."),
        ("7", "fr", "7", "Buvez de l'eau propre à 20 °C."),
        ("in.tmx:2", "en", "in.tmx:2", "Rest."),
        ("in.tmx:2", "fr", "in.tmx:2", "Repos."),
        ("in.tmx:2#2", "fr", "in.tmx:2", "Dormez."),
    ]


ENTITIES = (
    '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa">{more}]>'
    '<tmx><body><tu><tuv xml:lang="en"><seg>{use}</seg></tuv></tu></body></tmx>'
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ENTITIES.format(more='<!ENTITY b "&a;&a;">', use="&b;"), "declares an entity"),
        (ENTITIES.format(more='<!ENTITY b SYSTEM "file:///etc/passwd">', use="&b;"), "declares an entity"),
        (ENTITIES.format(more='<!ENTITY % p SYSTEM "file:///etc/passwd">%p;', use="-"), "declares an entity"),
        ("<tmx><body><tu>\n</body></tmx>", r"in\.tmx:2: not XML \(mismatched tag\)"),
        ("<tmx><body>", r"in\.tmx:1: not XML"),
        ("<html/>", "XML, but not TMX"),
        ("no markup", "not XML"),
    ],
)
def test_markup_that_is_no_memory_or_could_hold_anything_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "in.tmx").write_text(content)
    with pytest.raises(DataError, match=words):
        list(rows(tmp_path / "in.tmx"))


def test_exams_come_in_the_same_forms(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,question,A,B,C,answer\n1,What?,rice,salt,,B\n")
    (found,) = read(tmp_path / "in.csv", Source(path="*", language="en"), to_question)
    assert (found.question, found.options, found.answers) == ("What?", ("rice", "salt"), (1,))


def test_a_saved_data_set_is_read_without_its_library_and_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / "in/set" / split
        folder.mkdir(parents=True)
        (folder / "data-0.arrow").write_bytes(as_arrow([{**r, "id": f"{split}{r['id']}"} for r in RECORDS]))
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    (tmp_path / "in/set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for pattern, files in (
        ("set", ["set/test/data-0.arrow", "set/train/data-0.arrow"]),
        ("set/train", ["set/train/data-0.arrow"]),
        ("s*/tr*", ["set/train/data-0.arrow"]),
    ):
        section = CorpusSection.model_validate({"root": str(tmp_path / "in"), "texts": [{"path": pattern}]})
        assert [item.file for item in plan(section, section.texts)] == files
    (tmp_path / "in/set/train/state.json").write_text('{"_data_files": [{"filename": "../../data-0.arrow"}]}')
    with pytest.raises(DataError, match="names a file outside"):
        hub.saved(tmp_path / "in/set/train")


def test_a_data_set_of_a_hub_comes_as_the_files_of_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes a folder where it takes an id, so that no network is needed here."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.jsonl").write_bytes(lines(RECORDS))
    monkeypatch.chdir(tmp_path)
    source = Source(hub="set")
    ((path, name),) = hub.files(source)
    assert values(path) == RECORDS
    assert name == "set/train/0"
    datasets.load_dataset("set", split="train").save_to_disk("saved")
    assert [v for path in hub.saved(tmp_path / "saved") for v in values(path)] == RECORDS
    with pytest.raises(DataError, match="cannot be read from the hub"):
        hub.files(Source(hub="set", hub_split="absent"))
    section = CorpusSection.model_validate({"texts": [{"hub": "set"}]})
    assert [item.file for item in plan(section, section.texts)] == ["set/train/0"]


def test_a_hub_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"a/b/train: needs the package datasets; .*evaluate"):
        hub.files(Source(hub="a/b"))


def test_expanding_is_bounded_by_size_and_never_below_one_line() -> None:
    assert allowance(0) == MAX_LINE_BYTES
    assert allowance(10**6) == MAX_RATIO * 10**6
    assert allowance(10**12) == 64 * 10**9


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Ten times the lines, and the same peak within a tenth."""
    program = (
        "import sys; from pathlib import Path; from polyclinic.corpus.read.faults import Faults;"
        "from polyclinic.corpus.read.read import documents; from polyclinic.corpus_section import Source;"
        "n = sum(b.num_rows for b in documents(Path(sys.argv[1]), Source(path='*'), Faults(True), 'in'));"
        "print(n, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for times in (1, 10):
        path = tmp_path / f"{times}.jsonl"
        record = json.dumps({"language": "en", "text": "Wash your hands. " * 80}) + "\n"
        path.write_text(record * 2000 * times)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        count, peak = map(int, done.stdout.split())
        assert count == 2000 * times
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]
