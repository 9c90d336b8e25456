"""Bad data: one line that names file and line, exit 3 and nothing published; or counted, with the rest kept.

Each case has the number of its row in the list of bad inputs (34 to 57). Leaks and what names a
patient are held apart, in the tests of their steps.
"""

import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyclinic.cli import main
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.read.faults import QUARANTINE
from polyclinic.corpus.starter import documents as starter_documents
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import DataError
from polyclinic.progress import Silent

MARK = "Zwiebelkuchen"  # stands in every broken record, and in nothing that is said of it
GOOD = [{"id": f"g{i}", "language": "en", "text": f"Wash your hands, {i}."} for i in range(2)]
BAD = {"id": "b", "language": "en", "text": f"Drink {MARK}."}
ITEM = {"language": "en", "question": f"What is {MARK}?", "options": ["rice", "salt"], "answer": "A"}
LINE = re.compile(r"error: (?P<where>[^ ]+|source \S+): (?P<what>\S.*); (?P<try>\S.*)\n")
ASKED = {"language": "en", "instruction": "How?", "output": "So."}
ALWAYS = None  # of a kind that is never counted: the file is broken as a whole


def line(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def between(bad: bytes, end: bytes = b"\n") -> bytes:
    """Return JSON lines with a broken one between two good ones."""
    return end.join([line(GOOD[0]), bad, line(GOOD[1]), b""])


class Case(NamedTuple):
    """A file, where the fault must be placed, as what it is counted, and what is said."""

    file: str
    content: bytes | Callable[[Path], object]
    where: str
    kind: str | None
    words: str
    source: dict[str, Any] = {}  # noqa: RUF012 - never changed
    exam: bool = False


def long_line(path: Path) -> None:
    """Write 200 MB as one line, which takes no room on the disk."""
    with path.open("wb") as file:
        file.write(line(GOOD[0]) + b"\n" + b'{"text": "')
        file.seek(200_000_000, os.SEEK_CUR)
        file.write(b"\n" + line(GOOD[1]) + b"\n")


def table(path: Path, texts: pa.Array) -> None:
    pq.write_table(pa.table({"language": ["en"] * len(texts), "text": texts}), path)


def numbers(path: Path) -> None:
    table(path, pa.array([1, 2]))


def wrong_bytes(path: Path) -> None:
    raw = pa.array([b"Wash.", MARK.encode() + b"\xff", b"Rest."])
    table(path, pa.Array.from_buffers(pa.string(), 3, raw.buffers()))


def wrong_footer(path: Path) -> None:
    table(path, pa.array(["Wash."]))
    path.write_bytes(path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.jsonl", line(GOOD[0]))


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../../escaped.jsonl")
        member.size = len(line(GOOD[0]))
        archive.addfile(member, io.BytesIO(line(GOOD[0])))


def bomb(path: Path) -> None:
    """Write 30 MB in good lines of 3 MB, small once compressed."""
    records = [{**GOOD[0], "id": str(i), "text": "Wash. " * 500_000} for i in range(10)]
    path.write_bytes(gzip.compress(b"\n".join(map(line, records)), mtime=0))


CUT = gzip.compress(between(line(BAD)), mtime=0)[:-12]
HALF = json.dumps(BAD).replace("Drink", "\\ud800").encode()

CASES = {
    "34 empty file": Case("in.jsonl", b"", "in.jsonl", ALWAYS, "the file is empty"),
    "34 blank file": Case("in.jsonl", b"\n \n", "in.jsonl", ALWAYS, "holds no record"),
    "34 table without rows": Case("in.csv", b"language,text\n", "in.csv", ALWAYS, "holds no record"),
    "35 bad JSON": Case("in.jsonl", between(line(BAD)[:-3]), "in.jsonl:2", "not JSON", "not a JSON object"),
    "35 another JSON": Case("in.jsonl", between(line([MARK])), "in.jsonl:2", "no object", "is not an object"),
    "35 bad JSON in an array": Case("in.json", b'[{"text": "' + MARK.encode(), "in.json:1", ALWAYS, "cut short"),
    "36 cut last line": Case(
        "in.jsonl", between(line(GOOD[0])) + line(BAD)[:-3], "in.jsonl:4", "not JSON", "is it cut short?"
    ),
    "37 a line of 200 MB": Case("in.jsonl", long_line, "in.jsonl:2", "too long", "more than 16000000 bytes"),
    "38 invalid UTF-8": Case(
        "in.jsonl", between(line(BAD).replace(b"Drink", b"Dr\xffnk")), "in.jsonl:2", "not UTF-8", "byte 41 is not UTF-8"
    ),
    "38 invalid UTF-8 in a table": Case(
        "in.csv", b"language,text\nen,one\nen,Dr\xffnk\nen,two\n", "in.csv:3", "not UTF-8", "a byte that is not UTF-8"
    ),
    "38 invalid UTF-8 in Parquet": Case("in.parquet", wrong_bytes, "in.parquet:2", "not UTF-8", "is not UTF-8"),
    "38 UTF-16": Case("in.jsonl", line(BAD).decode().encode("utf-16"), "in.jsonl", ALWAYS, "is UTF-16"),
    "39 lone surrogate": Case("in.jsonl", between(HALF), "in.jsonl:2", "not UTF-8", "half a character"),
    "40 NUL bytes": Case("in.jsonl", between(line(BAD)[:-6] + b'\0"}'), "in.jsonl:2", "not JSON", "not a JSON"),
    "40 NUL bytes in text": Case("in.txt", b"one\n\0two", "in.txt", ALWAYS, "a NUL byte", {"language": "en"}),
    "41 wrong type": Case("in.jsonl", between(line({**BAD, "text": 5})), "in.jsonl:2", "wrong type", "is not text"),
    "41 wrong type of a column": Case("in.parquet", numbers, "in.parquet:1", "wrong type", "field 'text' is not text"),
    "42 missing column": Case(
        "in.csv", b"language,body\nen,one\n", "in.csv:2", "missing field", "map it with fields: {text: COLUMN}"
    ),
    "42 a row without its last cell": Case(
        "in.csv", b"language,text\nen,one\nen\nen,two\n", "in.csv:3", "another number of cells", "1 cells"
    ),
    "43 empty answer": Case(
        "in.jsonl", line({**ITEM, "answer": ""}),
        "in.jsonl:1", "answer outside the options", "not the letter", exam=True
    ),
    "43 empty answer of a dialogue": Case(
        "in.jsonl",
        b"\n".join(map(line, [ASKED, {**ASKED, "instruction": MARK, "output": " "}, ASKED])),
        "in.jsonl:2",
        "empty field",
        "field 'output' is empty",
        {"layout": "alpaca"},
    ),
    "44 letter outside the options": Case(
        "in.jsonl", line({**ITEM, "answer": "C"}),
        "in.jsonl:1", "answer outside the options", "not the letter", exam=True
    ),
    "45 one option": Case(
        "in.jsonl", line({**ITEM, "options": [MARK]}),
        "in.jsonl:1", "fewer than two options", "two options", exam=True
    ),
    "46 one id, two texts": Case(
        "in.jsonl", between(line({**BAD, "id": "g0"})), "in.jsonl:2", "id of another text", "at in.jsonl:1"
    ),
    "48 gzip cut short": Case("in.jsonl.gz", CUT, "in.jsonl.gz", ALWAYS, "cut short or damaged"),
    "48 zstd cut short": Case(
        "in.jsonl.zst", pa.compress(between(line(BAD)), "zstd", asbytes=True)[:-9], "in.jsonl.zst", ALWAYS, "cut short"
    ),
    "49 JSON lines that are gzip": Case("in.jsonl", gzip.compress(between(line(BAD))), "in.jsonl", ALWAYS, "is gzip"),
    "49 gzip that is none": Case("in.jsonl.gz", between(line(BAD)), "in.jsonl.gz", ALWAYS, "is not gzip"),
    "50 wrong footer": Case("in.parquet", wrong_footer, "in.parquet", ALWAYS, "not a readable Parquet file"),
    "51 zip that leads out": Case("in.zip", zipped, "in.zip", ALWAYS, "archives are never unpacked"),
    "51 tar that leads out": Case("in.tar", tarred, "in.tar", ALWAYS, "archives are never unpacked"),
    "51 compressed tar": Case("in.tar.gz", b"", "in.tar.gz", ALWAYS, "archives are never unpacked"),
    "51 zip by another name": Case("in.jsonl", zipped, "in.jsonl", ALWAYS, "is a zip archive"),
    "51 tar by another name": Case("in.jsonl", tarred, "in.jsonl", ALWAYS, "is a tar archive"),
    "52 gzip bomb": Case("in.jsonl.gz", bomb, "in.jsonl.gz", ALWAYS, "expands to more than 100 times its size"),
    "53 unknown language": Case(
        "in.jsonl", between(line({**BAD, "language": "xq"})), "in.jsonl:2", "unknown language", "unknown language 'xq'"
    ),
    "53 text in place of the language": Case(
        "in.jsonl", between(line({**BAD, "language": f"Drink {MARK}"})), "in.jsonl:2", "unknown language", "no code"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(inside: Path) -> Path:
    return inside


def section(case: Case, folder: Path, **settings: Any) -> dict[str, Any]:
    path = folder / "in" / case.file
    path.parent.mkdir()
    if callable(case.content):
        case.content(path)
    else:
        path.write_bytes(case.content)
    source = {"path": case.file, **case.source}
    places = (
        {"texts": [{"starter": True, "languages": ["en"]}], "exams": [source]} if case.exam else {"texts": [source]}
    )
    return {"root": "in", "languages": ["en"], "held_out": 0.0, **places, **settings}


def recipe(corpus: dict[str, Any]) -> str:
    return json.dumps({"name": "r", "corpus": corpus, "base": {"from_scratch": {"steps": 1}}, "train": {"steps": 1}})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_data_is_one_line_with_its_place_and_3(case: Case, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text(recipe(section(case, place)))
    code = main(["corpus", "build", "r.yaml", "--out", "out"])
    said = capsys.readouterr().err.splitlines(keepends=True)[-1]
    found = LINE.fullmatch(said)
    assert found, said
    assert (code, found["where"], case.words in said) == (3, case.where, True), said
    assert MARK not in said
    assert not (place / "out" / "corpus").exists()
    assert not list(place.rglob("*escaped*"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_data_is_counted_if_asked_and_nothing_else_is_lost(case: Case, place: Path) -> None:
    """Without the broken record the same build succeeds with all the others; a broken file never does."""
    asked = CorpusSection.model_validate(section(case, place, on_error="count", check_language="report"))
    (place / "out").mkdir()
    if case.kind is ALWAYS:
        with pytest.raises(DataError):
            build(asked, place / "out", Silent())
        return
    facts = build(asked, place / "out", Silent())
    documents = list(read_documents(place / "out"))
    dropped = {reason: n for reason, n in facts["counts"].items() if reason.startswith("dropped: ")}
    reason = f"exams: unreadable: {case.kind}" if case.exam else f"dropped: unreadable: {case.kind}"
    assert facts["counts"][reason] == (2 if case.where == "in.parquet:1" else 1)
    assert facts["rows_in"] == len(documents) + sum(dropped.values())
    notes = [json.loads(note) for note in (place / "out" / QUARANTINE).read_text().splitlines()]
    if case.kind != "id of another text":
        number = int(case.where.split(":")[1])
        assert {"file": case.file, "line": number, "reason": case.kind} in notes
    assert not any(MARK in path.read_text("utf-8", "replace") for path in place.glob("out/*.json*"))
    if case.file == "in.jsonl" and not case.exam and "layout" not in case.source:
        assert {d.id for d in documents} >= {"g0", "g1"}


def built(place: Path, content: bytes, **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    (place / "in").mkdir()
    (place / "in" / "in.jsonl").write_bytes(content)
    (place / "out").mkdir()
    values = {"root": "in", "texts": [{"path": "*.jsonl"}], "languages": ["en"], "held_out": 0.0, **settings}
    facts = build(CorpusSection.model_validate(values), place / "out", Silent())
    return facts["counts"], list(read_documents(place / "out"))


def test_40_an_escaped_NUL_goes_and_is_counted(place: Path) -> None:
    counts, (document,) = built(place, line({**BAD, "text": "Drink\0 water\0"}))
    assert document.text() == "Drink water"
    assert counts["changed: normalised"] == 1


def test_47_mixed_line_ends_are_line_ends(place: Path) -> None:
    _, documents = built(place, line(GOOD[0]) + b"\r\n" + line(GOOD[1]) + b"\n" + line(BAD) + b"\r\n")
    assert [d.text() for d in documents] == [GOOD[0]["text"], GOOD[1]["text"], BAD["text"]]


def test_53_another_language_than_the_one_declared_is_counted(place: Path) -> None:
    """What is detected is tested with its step; here that the record goes and is counted."""
    russian = next(d.text() for d in starter_documents() if d.language == "ru")
    counts, documents = built(place, line({**BAD, "text": russian}), languages=["en", "ru"])
    assert documents == []
    assert [n for reason, n in counts.items() if reason.startswith("dropped: en ")] == [1]


def test_54_bidi_controls_go_and_are_counted(place: Path) -> None:
    counts, (document,) = built(place, line({**BAD, "text": "5\u202e mg\u2066/kg\u2069"}))
    assert document.text() == "5 mg/kg"
    assert counts["changed: normalised"] == 1


def test_55_names_of_special_tokens_become_text_and_are_counted(place: Path) -> None:
    counts, (document,) = built(place, line({**BAD, "text": "Rest.<|im_end|>\n<|im_start|>system"}))
    assert document.text() == "Rest.< |im_end| >\n< |im_start| >system"
    assert counts["changed: special tokens"] == 1


@pytest.mark.parametrize("taken", [True, False])
def test_57_a_missing_licence_is_counted_and_refused_if_asked(place: Path, taken: bool) -> None:
    counts, documents = built(place, line(BAD), licences={"unknown": taken})
    assert len(documents) == taken
    assert counts["licence: not known" if taken else "dropped: licence unknown"] == 1


def test_57_a_refused_licence_is_one_line_and_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("in.jsonl", line({**BAD, "source": "s", "licence": "cc-by-nc-4.0"}), "", None, "")
    policy = {"non_commercial": False, "on_refusal": "fail"}
    Path("r.yaml").write_text(recipe(section(case, place, licences=policy)))
    assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 3
    said = capsys.readouterr().err.splitlines(keepends=True)[-1]
    assert LINE.fullmatch(said)
    assert said.startswith("error: source s: licence CC-BY-NC-4.0: NC, which corpus.licences refuses; ")


def test_every_row_of_the_list_has_its_test() -> None:
    here = {name for name in globals() if name.startswith("test_")}
    ids = {int(name.split()[0]) for name in CASES} | {int(name.split("_")[1]) for name in here if name[5:7].isdigit()}
    assert ids | {56} == set(range(34, 58))
