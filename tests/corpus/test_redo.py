"""A changed setting or input redoes what it touches and nothing else; what was published is never written into."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyclinic.corpus import clean as cleaning
from polyclinic.corpus import normalise
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.engine import parts, phases
from polyclinic.corpus.engine.inputs import PLAN, plan, plan_all, read_plan, written
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import DataError
from polyclinic.progress import Silent
from polyclinic.runs import read_json, sha256_file

Section = Callable[..., CorpusSection]
NAMES = ("a", "b", "c")
HUNDRED = [f"a sentence of file {{}} with number {i}" for i in range(60)]


@pytest.fixture
def given(tmp_path: Path, write_records: Callable[..., Path]) -> Path:
    """Three files of sixty documents each; one of `b` doubles one of `a`."""
    for name in NAMES:
        found = [{"id": f"{name}{i}", "language": "en", "text": text.format(name)} for i, text in enumerate(HUNDRED)]
        if name == "b":
            found[7]["text"] = HUNDRED[3].format("a")
        write_records(tmp_path / f"in/{name}.jsonl", found)
    return tmp_path


def built(section: CorpusSection, home: Path) -> set[str]:
    """Build anew over the shards that are there; returns what was done, as `phase name`."""
    before = shards(home)
    out = home / f"out{len(list(home.glob('out*')))}"
    out.mkdir()
    build(section, out, Silent(), home / "shards")
    return {name for name, made in shards(home).items() if before.get(name) != made}


def shards(home: Path) -> dict[str, int]:
    """Return when each shard's manifest was written."""
    found = (home / "shards").glob("*/*/manifest.json")
    return {f"{p.parts[-3]} {p.parts[-2]}": p.stat().st_mtime_ns for p in found}


def named(phase: str, *names: str) -> set[str]:
    return {f"{phase} 000-{NAMES.index(name):05d}-{name}" for name in names}


ALL = named("clean", *NAMES) | named("select", *NAMES) | {"decide all", "index exams"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"pack_tokens": 64, "root": "in/../in"}, set()),
        ({"exams": [{"starter": True, "languages": ["en"]}]}, ALL - named("select", *NAMES)),
        ({"privacy": {"mode": "drop"}}, ALL - named("select", *NAMES)),
        ({"held_out": 0.5}, {"decide all"} | named("select", *NAMES)),
        ({"validation": 0.5}, {"decide all"} | named("select", *NAMES)),
        ({"texts": [{"path": "*.jsonl", "max_per_language": 70}]}, {"decide all"} | named("select", "b", "c")),
        ({"texts": [{"path": "*.jsonl", "max_per_language": 1000}]}, {"decide all"}),
        ({"dedup": None}, named("clean", *NAMES) | {"decide all"} | named("select", "b")),
        ({"check_language": "drop"}, named("clean", *NAMES) | {"decide all"}),  # one language: none to tell it from
    ],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_a_changed_setting_redoes_what_it_touches(
    given: Path, section: Section, changes: dict[str, Any], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(given)
    settings: dict[str, Any] = {"texts": [{"path": "*.jsonl"}], "languages": ["en"]}
    first, second = (
        CorpusSection.model_validate({**section({"starter": True}).model_dump(), **settings, **more})
        for more in ({}, changes)
    )
    assert built(first, given) == ALL
    assert built(second, given) == expected


def test_a_changed_input_redoes_its_own_shard_and_what_it_decides(given: Path, section: Section) -> None:
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    built(chosen, given)
    path = given / "in/b.jsonl"
    path.write_text(path.read_text().replace("number 59", "number sixty"))
    assert built(chosen, given) == named("clean", "b") | {"decide all"} | named("select", "b")
    path.write_text(path.read_text().replace("file b with number 9", "file a with number 9"))  # doubles one of a
    assert built(chosen, given) == named("clean", "b") | {"decide all"} | named("select", "b")


def test_files_that_come_and_go_leave_the_other_shards_alone(given: Path, section: Section) -> None:
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    built(chosen, given)
    (given / "in/aa.jsonl").write_text(json.dumps({"language": "en", "text": "quite another text"}) + "\n")
    new = {"clean 000-00001-aa", "select 000-00001-aa"}
    assert {name for name in built(chosen, given) if "-aa" in name} == new
    inodes = {p.parent.name: p.stat().st_ino for p in (given / "shards/clean").glob("*/documents.parquet")}
    (given / "in/a.jsonl").unlink()
    built(chosen, given)
    after = {p.parent.name: p.stat().st_ino for p in (given / "shards/clean").glob("*/documents.parquet")}
    assert [after[name] for name in sorted(after)] == [inodes[name] for name in sorted(inodes)][1:]
    fresh = given / "fresh"
    fresh.mkdir()
    build(chosen, fresh, Silent(), given / "others")
    outs = sorted(given.glob("out*"))
    assert digests(outs[-1]) == digests(fresh)


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("what", ["code", "libraries"])
def test_another_version_of_the_code_or_of_a_library_redoes_everything(
    given: Path, section: Section, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    built(chosen, given)
    monkeypatch.setattr(phases, what, lambda: "another")
    assert built(chosen, given) == ALL


def test_what_was_published_is_never_written_into(given: Path, section: Section) -> None:
    """Its files are links to those of the shards; each is replaced whole where it changes."""
    built(section({"path": "*.jsonl"}, languages=["en"]), given)
    (linked,) = given.glob("out0/documents/*-a.parquet")
    assert linked.stat().st_nlink == 2
    before = digests(given / "out0")
    built(section({"path": "*.jsonl"}, languages=["en"], held_out=0.5), given)
    assert digests(given / "out0") == before
    assert linked.stat().st_nlink == 1
    assert digests(given / "out1") != before


# The plan


def test_the_plan_is_written_without_a_place_and_found_again_without_reading(
    given: Path, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 1500)
    chosen = section({"path": "*.jsonl"}, {"path": str(given / "in/a.jsonl")}, {"starter": True}, languages=["en"])
    built(chosen, given)
    raw = (given / "out0" / PLAN).read_text("utf-8")
    assert raw == (given / "shards" / PLAN).read_text("utf-8")
    assert str(given) not in raw
    rows = json.loads(raw)["texts"]
    assert [(row["file"], row["source"]) for row in rows if not row["name"].endswith(("1", "2", "3"))] == [
        ("a.jsonl", 0), ("b.jsonl", 0), ("c.jsonl", 0), ("a.jsonl", 1), ("starter", 2),
    ]  # fmt: skip
    assert [row["name"] for row in rows] == sorted({row["name"] for row in rows})
    read = []
    monkeypatch.setattr(parts, "pieces", read.append)
    assert read_plan(given / "shards" / PLAN, chosen) == plan_all_unread(chosen, monkeypatch)
    assert read == []


def plan_all_unread(section: CorpusSection, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.undo()
    monkeypatch.setattr(parts, "PART_BYTES", 1500)
    return plan_all(section)


def test_a_plan_of_other_settings_or_files_is_refused(given: Path, section: Section) -> None:
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    built(chosen, given)
    path = given / "shards" / PLAN
    with pytest.raises(DataError, match="the plan of another recipe"):
        read_plan(path, section({"path": "*.jsonl"}, languages=["en"], held_out=0.5))
    (given / "in/d.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="or of other files"):
        read_plan(path, chosen)


def test_parts_of_files_give_the_documents_of_whole_files(
    given: Path, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (given / "in").glob("*.jsonl"):  # without ids of their own they are named by file and line
        path.write_text("".join(json.dumps({**json.loads(line), "id": None}) + "\n" for line in path.open()))
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    built(chosen, given)
    monkeypatch.setattr(parts, "PART_BYTES", 1500)
    assert len(plan(chosen, chosen.texts)) == 9
    built(chosen, given)
    assert list(read_documents(given / "out1")) == list(read_documents(given / "out0"))
    card = [read_json(given / name / "card.json") for name in ("out0", "out1")]
    assert card[0] == card[1]


def test_parts_that_change_places_are_done_again_because_lines_name_their_records(
    tmp_path: Path, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"language": "en", "text": f"the text that has the number {n}"}) + "\n" for n in range(10, 30)]
    path = tmp_path / "in/a.jsonl"
    path.parent.mkdir()
    path.write_text("".join(lines))
    monkeypatch.setattr(parts, "PART_BYTES", 10 * len(lines[0]))
    chosen = section({"path": "*.jsonl"}, languages=["en"], dedup=None)
    built(chosen, tmp_path)
    before = {item.sha256 for item in plan(chosen, chosen.texts)}
    path.write_text("".join(lines[10:] + lines[:10]))
    assert {item.sha256 for item in plan(chosen, chosen.texts)} == before
    assert len(before) == 2
    built(chosen, tmp_path)
    (tmp_path / "fresh").mkdir()
    build(chosen, tmp_path / "fresh", Silent(), tmp_path / "others")
    assert list(read_documents(tmp_path / "out1")) == list(read_documents(tmp_path / "fresh"))


def test_names_of_shards_are_short_and_plain_whatever_files_are_called(tmp_path: Path, section: Section) -> None:
    names = ["x" * 240 + ".jsonl", "a b\n/c.jsonl".replace("/", ":"), os.fsdecode(b"\xff.jsonl"), "\u6587\u4ef6.jsonl"]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_text(json.dumps({"language": "en", "text": name[:9]}, ensure_ascii=True) + "\n")
    chosen = section({"path": "*.jsonl"}, languages=["en"])
    found = plan(chosen, chosen.texts)
    assert all(len(item.name) < 60 and item.name.isprintable() for item in found)
    json.dumps(written(chosen, plan_all(chosen)), ensure_ascii=False).encode()


def test_a_fault_of_a_step_names_step_and_shard_and_no_text(
    given: Path, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: Any) -> Any:
        raise ValueError(batch.column("turns")[0])

    monkeypatch.setattr(cleaning, "normalise", broken)
    assert normalise.normalise is not broken
    with pytest.raises(
        Exception, match=r"^000-00000-a: ValueError in step normalise \(and 2 more of 3 failed\); a fault"
    ):
        built(section({"path": "*.jsonl"}, languages=["en"]), given)
