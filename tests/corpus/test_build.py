"""Building: nothing gets lost uncounted, bytes depend on the input alone, held-out groups are whole."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus import starter
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.engine.inputs import plan, wanted_languages
from polyclinic.corpus.tables import DOCUMENTS, QUESTIONS, read_rows
from polyclinic.corpus_section import CorpusSection, Source
from polyclinic.errors import DataError, UnknownLanguageError
from polyclinic.progress import Silent
from polyclinic.records import Document, Question
from polyclinic.runs import read_json, sha256_file

Write = Callable[..., Path]
Section = Callable[..., CorpusSection]


def texts(*contents: str, language: str = "en", start: int = 0, **other: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"{language}{start + i}", "language": language, "text": text, "licence": "CC0-1.0", **other}
        for i, text in enumerate(contents)
    ]


def built(section: CorpusSection, folder: Path) -> tuple[dict[str, Any], list[Document]]:
    folder.mkdir()
    facts = build(section, folder, Silent())
    return facts, list(read_documents(folder))


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def expect_balance(facts: dict[str, Any], documents: list[Document]) -> None:
    dropped = sum(n for reason, n in facts["counts"].items() if reason.startswith("dropped"))
    assert facts["rows_in"] == facts["documents"] + dropped
    assert facts["documents"] == len(documents)


def test_rows_in_are_rows_out_and_drops_each_with_its_reason(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    write_records(tmp_path / "in/a.jsonl", texts("one", "two", "TWO ", "\u200b", "three", "four", "fi  ve"))
    write_records(tmp_path / "in/b.parquet", texts("one", "six", start=9) + texts("один", language="ru"))
    source = {"path": "*.*", "max_per_language": 4}
    facts, documents = built(section(source, languages=["en"]), tmp_path / "out")
    expect_balance(facts, documents)
    assert facts["rows_in"] == 10
    assert [d.text() for d in documents] == ["one", "two", "three", "four"]
    drops = {reason: n for reason, n in facts["counts"].items() if reason.startswith("dropped")}
    assert drops == {
        "dropped: empty": 1,
        "dropped: exact duplicate": 2,
        "dropped: language not in the recipe": 1,
        "dropped: over max_per_language": 2,
    }
    assert read_json(tmp_path / "out/card.json")["rows_in"] == 10


rows_of_a_file = st.lists(
    st.tuples(st.sampled_from(["en", "ru", "bm"]), st.text("aA \u200b9", min_size=1).filter(str.strip)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=12)
@given(files=st.lists(rows_of_a_file, min_size=1, max_size=3), cap=st.none() | st.integers(1, 3))
def test_the_rows_add_up_whatever_the_input(
    files: list[list[tuple[str, str]]],
    cap: int | None,
    tmp_path_factory: pytest.TempPathFactory,
    write_records: Write,
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    for i, found in enumerate(files):
        write_records(folder / f"in/{i}.jsonl", [{"language": code, "text": text} for code, text in found])
    source = {"path": "*.jsonl", "max_per_language": cap}
    wanted = CorpusSection.model_validate({"root": str(folder / "in"), "texts": [source], "languages": ["en", "bm"]})
    facts, documents = built(wanted, folder / "out")
    expect_balance(facts, documents)
    assert facts["rows_in"] == sum(map(len, files))
    per_language = Counter(d.language for d in documents)
    assert all(n <= (cap or n) for n in per_language.values())
    assert set(per_language) <= {"en", "bm"}


def test_the_bytes_do_not_depend_on_workers_or_the_place(tmp_path: Path, write_records: Write) -> None:
    outputs = []
    for place, workers in (("one", 1), ("two/deeper", 2)):
        folder = tmp_path / place
        for i in range(3):
            kept = [f"text {i} {j} of the first kind" for j in range(40)]
            write_records(
                folder / f"in/{i}.jsonl",
                texts(*kept, start=100 * i) + texts("same", f"мир {i}", language="ru", start=2 * i),
            )
        exam = {"language": "en", "question": "Which?", "options": ["x", "y"], "answer": "A"}
        write_records(folder / "in/exams.jsonl", [exam])
        values = {
            "root": str(folder / "in"),
            "texts": [{"path": "[0-9].jsonl"}, {"starter": True, "languages": ["en", "ru"]}],
            "exams": [{"path": "exams.jsonl"}, {"starter": True}],
            "languages": ["en", "ru"],
            "held_out": 0.3,
            "workers": workers,
        }
        built(CorpusSection.model_validate(values), folder / "out")
        outputs.append(digests(folder / "out"))
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) >= {"card.json", "card.md", "questions.parquet"}
    assert len([name for name in outputs[0] if name.startswith("documents/")]) == 4


def test_a_bad_line_in_a_worker_stops_the_build(tmp_path: Path, section: Section, write_records: Write) -> None:
    write_records(tmp_path / "in/a.jsonl", texts("good", "better"))
    write_records(tmp_path / "in/b.jsonl", [*texts("good"), {"id": "x", "language": "en", "text": None}])
    with pytest.raises(DataError) as caught:
        built(section({"path": "*.jsonl"}, workers=2), tmp_path / "out")
    assert caught.value.where == "b.jsonl:2"


def test_duplicates_are_dropped_once_and_translations_kept(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    same = ["Malaria 5 mg", "MALARIA 5  mg", "Ｍalaria\u00a05 mg", "malaria 5 mg."]
    write_records(tmp_path / "in/a.jsonl", texts(*same))
    write_records(tmp_path / "in/b.jsonl", texts("malaria 5 mg", language="es") + texts("Malaria 5 mg", start=9))
    facts, documents = built(section({"path": "*"}, languages=["en", "es"]), tmp_path / "out")
    assert [(d.language, d.text()) for d in documents] == [
        ("en", "Malaria 5 mg"),
        ("en", "malaria 5 mg."),
        ("es", "malaria 5 mg"),
    ]
    assert facts["counts"]["dropped: exact duplicate"] == 3


def test_translations_are_held_out_together_and_the_share_is_near_the_one_asked(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    num_groups, share = 1500, 0.2
    for code in ("en", "ru", "bm"):
        found = [
            {"id": f"{code}{i}", "language": code, "text": f"t{i}", "parallel_id": f"g{i}"} for i in range(num_groups)
        ]
        write_records(tmp_path / f"in/{code}.jsonl", found)
    _, documents = built(section({"path": "*"}, languages=["en", "ru", "bm"], held_out=share), tmp_path / "out")
    splits = defaultdict(set)
    for d in documents:
        splits[d.group].add(d.split)
    assert all(len(found) == 1 for found in splits.values())
    held_out = sum(found == {"held_out"} for found in splits.values())
    assert abs(held_out - share * num_groups) < 5 * sqrt(share * (1 - share) * num_groups)


def test_validation_comes_out_of_training_alone_and_group_by_group(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    num_groups, share = 1500, 0.2
    for code in ("en", "ru"):
        found = [
            {"id": f"{code}{i}", "language": code, "text": f"t{i}", "parallel_id": f"g{i}"} for i in range(num_groups)
        ]
        write_records(tmp_path / f"in/{code}.jsonl", found)
    made = {}
    for validation in (0.0, share):
        settings = {"languages": ["en", "ru"], "held_out": 0.3, "validation": validation}
        _, documents = built(section({"path": "*"}, **settings), tmp_path / f"out{validation}")
        made[validation] = {d.id: (d.group, d.split) for d in documents}
    before, after = made[0.0], made[share]
    assert {split for _, split in before.values()} == {"train", "held_out"}
    moved = {record for record in before if before[record] != after[record]}
    assert {before[record][1] for record in moved} == {"train"}
    assert {after[record][1] for record in moved} == {"validation"}
    groups = {before[record][0] for record in moved}
    assert moved == {record for record, (group, split) in before.items() if group in groups}
    trained = len({group for group, split in before.values() if split == "train"})
    assert abs(len(groups) - share * trained) < 5 * sqrt(share * (1 - share) * trained)


def test_a_cap_counts_a_language_over_all_files_of_a_source(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    for start, name in enumerate(("a", "b")):
        found = texts(f"{name} one", f"{name} two", start=2 * start)
        found += texts(f"{name} один", language="ru", start=start)
        write_records(tmp_path / f"in/{name}.jsonl", found)
    capped, free = {"path": "*.jsonl", "max_per_language": 3}, {"path": "a.jsonl", "max_per_language": 1}
    facts, documents = built(section(capped, free, languages=["en", "ru"]), tmp_path / "out")
    assert [d.text() for d in documents] == ["a one", "a two", "a один", "b one", "b один"]
    assert facts["counts"]["dropped: over max_per_language"] == 1
    assert facts["counts"]["dropped: exact duplicate"] == 3  # of the second source, which counts on its own


def test_files_of_one_name_in_two_folders_are_both_read(tmp_path: Path, section: Section, write_records: Write) -> None:
    for start, folder in enumerate(("x", "y")):
        write_records(tmp_path / f"in/{folder}/en.jsonl", texts(f"text of {folder}", start=start))
        write_records(tmp_path / f"in/{folder}/en.parquet", texts(f"table of {folder}", start=start + 2))
    facts, documents = built(section({"path": "**/*.*"}, languages=["en"]), tmp_path / "out")
    assert [d.text() for d in documents] == ["text of x", "table of x", "text of y", "table of y"]
    expect_balance(facts, documents)


def test_the_plan_is_sorted_takes_only_files_and_absolute_paths(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    for name in ("b/2.jsonl", "a/10.jsonl", "a/9.jsonl", "c[1].jsonl"):
        write_records(tmp_path / "in" / name, texts(name))
    (tmp_path / "in/d.jsonl").mkdir()
    sources = [{"path": "**/*.jsonl"}, {"path": str(tmp_path / "in/a/*.jsonl")}, {"path": "c[1].jsonl"}]
    inputs = plan(section(*sources), section(*sources).texts)
    found = [i.path.relative_to(tmp_path / "in").as_posix() for i in inputs if i.path]
    assert found == ["a/10.jsonl", "a/9.jsonl", "b/2.jsonl", "c[1].jsonl", "a/10.jsonl", "a/9.jsonl", "c[1].jsonl"]
    names = [i.name for i in inputs]
    assert names == sorted(set(names))
    assert all(i.sha256 == sha256_file(i.path) for i in inputs if i.path)


@pytest.mark.parametrize("pattern", ["nothing-*.jsonl", "absent.jsonl", "/absent/file.jsonl", ""])
def test_a_path_that_finds_nothing_is_an_error(tmp_path: Path, section: Section, pattern: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no file matches"):
        plan(section({"path": pattern}), section({"path": pattern}).texts)


def test_an_unknown_language_in_a_recipe_is_an_error(tmp_path: Path, section: Section) -> None:
    with pytest.raises(UnknownLanguageError, match="xq"):
        wanted_languages(section({"starter": True}, languages=["en", "xq"]))
    with pytest.raises(UnknownLanguageError, match="xq"):
        built(section({"starter": True, "languages": ["xq"]}), tmp_path / "out")
    assert wanted_languages(section({"starter": True}, languages=["nob", "cmn"])) == ("no", "zh")


@pytest.mark.parametrize("check", ["drop", "report", "off"])
def test_text_in_another_language_is_counted_and_dropped_if_asked(
    tmp_path: Path, section: Section, write_records: Write, check: str
) -> None:
    english, russian = (next(d.text() for d in starter.documents() if d.language == code) for code in ("en", "ru"))
    write_records(tmp_path / "in/a.jsonl", texts(english, russian))
    facts, documents = built(section({"path": "*"}, languages=["en", "ru"], check_language=check), tmp_path / "out")
    assert len(documents) == (1 if check == "drop" else 2)
    verb = "dropped" if check == "drop" else "language"
    assert facts["counts"] == ({} if check == "off" else {f"{verb}: en looks like ru": 1})


def test_no_direction_mark_reaches_a_shard(tmp_path: Path, section: Section, write_records: Write) -> None:
    write_records(tmp_path / "in/a.jsonl", texts("أعط \u202e5 mg\u202c/\u2066kg\u2069", language="ar"))
    built(section({"path": "*"}, languages=["ar"]), tmp_path / "out")
    (path,) = (tmp_path / "out/documents").iterdir()
    table = pq.read_table(path)
    assert table.schema == DOCUMENTS
    assert table["turns"].to_pylist() == [[{"role": "text", "content": "أعط 5 mg/kg"}]]


def test_filters_of_the_starter_corpus_hold(tmp_path: Path, section: Section) -> None:
    source = {"starter": True, "languages": ["cmn", "de"], "splits": ["train"]}
    nothing = {"starter": True, "names": ["another"]}
    _, documents = built(section(source, nothing, exams=[source | {"splits": ["test"]}, nothing]), tmp_path / "out")
    expected = {d.id for d in starter.documents() if d.language in ("zh", "de") and d.split == "train"}
    assert {d.id for d in documents} == expected
    rows = pq.read_table(tmp_path / "out/questions.parquet").to_pylist()
    expected = {q.id for q in starter.questions() if q.language in ("zh", "de") and q.split == "test"}
    assert {r["id"] for r in rows} == expected


def test_the_starter_corpus_comes_through_whole(tmp_path: Path, section: Section) -> None:
    _, documents = built(section({"starter": True}, check_language="drop", held_out=0.5), tmp_path / "out")
    assert documents == list(starter.documents())  # its own choice of what is held out stands


def test_exam_questions_are_kept_in_order_filtered_and_capped(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    def items(name: str, code: str, split: str) -> list[dict[str, Any]]:
        base = {"language": code, "split": split, "source": name, "options": ["x", "y", "z"], "answer": ["C", "A"]}
        return [{**base, "id": f"{name}-{code}-{i}", "question": f"Which {i}?", "context": "c"} for i in range(3)]

    write_records(tmp_path / "in/t.jsonl", texts("a text"))
    write_records(
        tmp_path / "in/e1.jsonl", items("a", "en", "test") + items("a", "ru", "test") + items("a", "fr", "test")
    )
    write_records(tmp_path / "in/e2.parquet", items("b", "en", "test") + items("b", "ru", "dev"))
    exams = [{"path": "e*", "splits": ["test"], "max_per_language": 4}]
    facts, _ = built(section({"path": "t.jsonl"}, exams=exams, languages=["en", "ru"]), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/questions.parquet")
    assert table.schema == QUESTIONS
    questions = [Question.from_row(r) for r in table.to_pylist()]
    assert [q.id for q in questions] == ["a-en-0", "a-en-1", "a-en-2", "a-ru-0", "a-ru-1", "a-ru-2", "b-en-0"]
    assert facts["questions"] == 7
    assert {(q.options, q.answers, q.context) for q in questions} == {(("x", "y", "z"), (2, 0), "c")}


def test_questions_carry_no_direction_marks(tmp_path: Path) -> None:
    item = {
        "id": "q",
        "language": "ar",
        "question": "\u202eكم\u202c 5 ml؟",
        "options": ["\u2067نعم\u2069", "لا"],
        "answer": "A",
    }
    (tmp_path / "exam.jsonl").write_text(json.dumps(item), "utf-8")
    section = CorpusSection(root=str(tmp_path), texts=[Source(starter=True)], exams=[Source(path="exam.jsonl")])
    (tmp_path / "out").mkdir()
    build(section, tmp_path / "out", Silent())
    row = next(read_rows(tmp_path / "out" / "questions.parquet"))
    assert (row["question"], row["options"]) == ("كم 5 ml؟", ["نعم", "لا"])


def test_a_file_that_moved_is_read_again_because_ids_name_it(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    ids = []
    for folder in ("x", "y"):
        path = write_records(tmp_path / f"in/{folder}/a.jsonl", [{"language": "en", "text": "one"}])
        (tmp_path / folder).mkdir()
        build(section({"path": "*/a.jsonl"}, languages=["en"]), tmp_path / folder, Silent(), tmp_path / "shards")
        ids += [d.id for d in read_documents(tmp_path / folder)]
        path.unlink()
    assert ids == ["x/a.jsonl:1", "y/a.jsonl:1"]


def test_decisions_reach_their_rows_in_every_batch(
    tmp_path: Path, section: Section, write_records: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyclinic.corpus.select.ROWS_PER_BATCH", 3)
    write_records(tmp_path / "in/a.jsonl", texts(*"abcdeafghia"))
    _, documents = built(section({"path": "*"}, languages=["en"]), tmp_path / "out")
    assert [d.text() for d in documents] == list("abcdefghi")


def test_of_what_is_dropped_all_is_counted_and_a_few_are_shown(
    tmp_path: Path, section: Section, write_records: Write
) -> None:
    write_records(tmp_path / "in/a.jsonl", texts("kept") + texts(*map(str, range(25)), language="ru"))
    built(section({"path": "*"}, languages=["en"]), tmp_path / "out")
    (shown,) = (tmp_path / "out/dropped").iterdir()
    assert [row["id"] for row in pq.read_table(shown).to_pylist()] == [f"ru{n}" for n in range(20)]
    assert read_json(tmp_path / "out/drops.json") == {"ru": {"language not in the recipe": 25}}
