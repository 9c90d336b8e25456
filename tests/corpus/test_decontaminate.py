"""Exam items in training text: found however they are set, kept out with their translations, reported without text."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.dedup.dedup import is_held_out
from polyclinic.corpus.leaks import exams
from polyclinic.corpus.leaks.decontaminate import LEAK, WAY, mark
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus.units import letters, plain, tokens, windows
from polyclinic.corpus_section import CorpusSection, DecontaminateSection
from polyclinic.progress import Silent
from polyclinic.records import Document, Question, Turn
from polyclinic.runs import read_json, sha256_file

Write = Callable[..., Path]
LONG = (
    "A farmer of sixty years coughs blood since a week and lost nine kilos; the picture shows a cave in the upper "
    "lobe. Which test settles it?"
)
SHORT = "Where does the thirsty beetle store salt?"
TINY = "Which one is true?"
HOST = "The village met on the green to talk of the harvest. " * 6
SHARE = 0.02
ASIDE = next(f"group {i}" for i in range(10_000) if is_held_out(f"group {i}", SHARE))
HAN = "一位六十岁的农民咳血一周并且体重下降九公斤胸片显示右上肺空洞应当首先做哪一项检查才能确诊"


def question(name: str, text: str, right: str = "Sputum culture", code: str = "en", group: str = "") -> Question:
    return Question(name, code, "exam", "", group or name, "test", text, (right, "Wait and see"), (0,))


ITEMS = [
    question("long", LONG),
    question("short", SHORT, "In its shell"),
    question("tiny", TINY, "Honey binds the oxygen of old iron"),
    question("han", HAN, "痰培养", code="zh"),
]


def marks(texts: Iterable[str], folder: Path, code: str = "en", **values: Any) -> list[dict[str, str]]:
    """Return for each text the exam items in it, each with the way."""
    section = DecontaminateSection(**values)
    rows = [Document(str(i), code, "s", "", str(i), (Turn("text", text),)).row() for i, text in enumerate(texts)]
    batch = mark(pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS), folder, section).batch
    names = pq.read_table(folder / exams.ITEMS_FILE).column("id").to_pylist()
    return [
        {names[item]: way for item, way in zip(row[LEAK], row[WAY], strict=True)}
        for row in batch.select([LEAK, WAY]).to_pylist()
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exams")
    exams.write(ITEMS, DecontaminateSection(), folder)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LONG, {"long": "verbatim"}),
        (LONG.upper().replace(" ", "  \n").replace(",", " -"), {"long": "verbatim"}),
        (LONG[30:100], {"long": "verbatim"}),
        (LONG[30:80], {}),
        (LONG.replace("sixty", "fifty").replace("nine", "six").replace("upper", "lower"), {"long": "overlap"}),
        (f"{LONG[:50]} {HOST} {LONG[50:100]}", {}),
        (SHORT, {"short": "verbatim"}),
        (SHORT.replace("salt", "milk"), {}),
        (TINY, {}),
        (f"{TINY} {HOST * 3} Honey binds the oxygen of old iron", {}),
        (f"{TINY}\nA) Honey burns\nB) Honey binds the oxygen of old iron", {"tiny": "verbatim"}),
        ("Honey binds the oxygen of old iron", {}),
        ("", {}),
    ],
    ids=[
        *(
            "whole",
            "case and spacing",
            "64 in a row",
            "too few in a row",
            "edited",
            "far apart",
            "short",
            "short edited",
        ),
        *("tiny alone", "tiny, answer far", "tiny with answer", "answer alone", "empty"),
    ],
)
def test_an_item_is_found_where_enough_of_it_stands(index: Path, text: str, expected: dict[str, str]) -> None:
    assert marks([f"{HOST}\n{text}\n{HOST}"], index) == [expected]


def test_han_text_is_searched_with_shorter_runs(index: Path) -> None:
    run = exams.lengths("zh", DecontaminateSection()).run
    assert run < 32
    assert marks([HAN[5 : 5 + run], " ".join(HAN), HAN[5:12]], index, code="zh") == [
        {"han": "verbatim"},
        {"han": "verbatim"},
        {},
    ]


def test_words_can_be_the_unit(tmp_path: Path) -> None:
    exams.write(ITEMS, DecontaminateSection(unit="words", units=13), tmp_path)
    words = LONG.split()
    texts = [" ".join(words[3:16]), " ".join(words[3:12]), LONG]
    assert marks(texts, tmp_path, unit="words", units=13) == [{"long": "verbatim"}, {}, {"long": "verbatim"}]


def test_a_short_question_with_two_right_answers_is_found_with_its_own_alone(tmp_path: Path) -> None:
    items = [question("shell", SHORT, "In its shell"), question("wings", SHORT, "Under both of its wings")]
    exams.write(items, DecontaminateSection(), tmp_path)
    texts = [f"{HOST} {SHORT}", f"{SHORT} In its shell.", f"{SHORT} Under both of its wings."]
    assert marks(texts, tmp_path) == [{}, {"shell": "verbatim"}, {"wings": "verbatim"}]


def test_a_phrase_of_many_questions_is_no_leak(tmp_path: Path) -> None:
    stem = "Which of the following statements about the treatment of grown patients with a disease of the "
    items = [question(f"q{i}", f"{stem}{organ} holds?") for i, organ in enumerate(["liver", "spleen", "kidney", "eye"])]
    exams.write(items, DecontaminateSection(), tmp_path)
    assert marks([stem + "hair?", items[2].question], tmp_path) == [{}, {"q2": "verbatim"}]


@settings(deadline=None, max_examples=12)
@given(st.integers(0, len(LONG) - 66), st.integers(0, 400), st.booleans())
def test_any_run_of_64_is_found_wherever_it_stands_and_none_of_50(
    index: Path, begin: int, at: int, enough: bool
) -> None:
    run = letters([plain(LONG)[begin:]]).sizes()[0] and plain(LONG)[begin:].lstrip(" .,;?")
    size = next((n for n in range(len(run)) if letters([run[:n]]).sizes()[0] >= (64 if enough else 50)), 0)
    found = marks([f"{HOST[:at]} # {run[:size]} # {HOST}"], index)[0]
    assert bool(found) == (enough and size > 0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("aB ,.-漢字ไท5é"), max_size=5), st.integers(1, 6))
def test_units_and_windows_are_those_of_each_text_alone(texts: list[str], length: int) -> None:
    plains = [plain(text) for text in texts]
    for make in (letters, tokens):
        together = make(plains)
        found = windows(together, length)
        for number, text in enumerate(plains):
            alone = make([text])
            assert together.of(number).tolist() == alone.of(0).tolist()
            expected = windows(alone, length)
            assert found.hashes[found.offsets[number] : found.offsets[number + 1]].tolist() == expected.hashes.tolist()
            assert len(expected.hashes) == max(0, alone.sizes()[0] - length + 1)


def files(folder: Path, write_records: Write) -> dict[str, Any]:
    """Write texts and exams, some leaked, some translations of leaked ones; returns the section's values."""
    texts = [
        {"id": "clean", "language": "en", "text": HOST},
        {"id": "leak", "language": "en", "text": f"{HOST} {LONG}", "parallel_id": "pair"},
        {"id": "twin", "language": "fr", "text": "Une traduction du texte.", "parallel_id": "pair"},
        {"id": "item-twin", "language": "fr", "text": "Une traduction de la question.", "parallel_id": "exam-group"},
        {"id": "q-short", "language": "fr", "text": "Un texte dont le nom est celui d'une question."},
        {"id": "spared", "language": "en", "text": f"Seen: {SHORT}", "parallel_id": ASIDE},
        {"id": "dev", "language": "en", "text": f"Notes. {TINY} Honey binds the oxygen of old iron."},
    ]
    base = {"language": "en", "source": "exam", "answer": "A"}
    asked = [
        {**base, "id": "q-long", "question": LONG, "options": ["Sputum culture", "Rest"], "parallel_id": "exam-group"},
        {**base, "id": "q-short", "question": SHORT, "options": ["In its shell", "In its legs"]},
        {**base, "id": "q-train", "question": HOST, "options": ["x", "y"], "split": "train"},
    ]
    extra = [
        {**base, "source": "other", "id": "q", "question": TINY, "options": ["Honey binds the oxygen of old iron", "b"]}
    ]
    write_records(folder / "in/t.jsonl", texts)
    write_records(folder / "in/e.jsonl", asked)
    write_records(folder / "in/x.jsonl", extra)
    values = {"root": str(folder / "in"), "texts": [{"path": "t.jsonl"}], "exams": [{"path": "e.jsonl"}]}
    return values | {"check_language": "report", "held_out": SHARE, "languages": ["en", "fr"], "dedup": None}


def built(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], set[str]]:
    folder.mkdir()
    facts = build(CorpusSection.model_validate(values), folder, Silent())
    return facts, {d.id for d in read_documents(folder)}


def test_leaks_and_their_translations_go_and_are_reported_without_text(tmp_path: Path, write_records: Write) -> None:
    values = files(tmp_path, write_records)
    facts, kept = built(values | {"decontaminate": {"against": [{"path": "x.jsonl"}]}}, tmp_path / "out")
    assert kept == {"clean", "q-short", "spared"}
    drops = {reason: n for reason, n in facts["counts"].items() if reason.startswith("dropped")}
    assert drops == {"dropped: exam item": 2, "dropped: translation of an exam item": 2}
    rows = pq.read_table(tmp_path / "out/leaks.parquet").to_pylist()
    assert {(r["id"], r["exam_id"], r["way"], r["dropped"]) for r in rows} == {
        ("leak", "q-long", "verbatim", True),
        ("twin", "q-long", "parallel", True),
        ("item-twin", "q-long", "parallel", True),
        ("spared", "q-short", "verbatim", False),
        ("dev", "q", "verbatim", True),
    }
    first, second = read_json(tmp_path / "out/leaks.json")["exams"]
    assert (first["benchmark"], first["items"], first["leaked_ids"]) == ("exam", 2, ["q-long", "q-short"])
    assert (first["documents"], first["dropped"]) == (4, 3)
    assert (second["benchmark"], second["items"], second["dropped"]) == ("other", 1, 1)
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").glob("leaks.*"))
    assert not [word for word in (b"farmer", b"beetle", b"Honey") if word in written]


def test_only_the_named_splits_are_searched_for_and_the_step_can_be_left_out(
    tmp_path: Path, write_records: Write
) -> None:
    values = files(tmp_path, write_records)
    _, kept = built(values | {"decontaminate": {"splits": ["train"]}}, tmp_path / "train")
    assert kept == {"item-twin", "q-short", "spared", "dev"}
    _, kept = built(values | {"decontaminate": None}, tmp_path / "off")
    assert len(kept) == 7
    assert not (tmp_path / "off/leaks.json").exists()


def test_a_leak_that_is_gone_for_another_reason_is_neither_counted_nor_reported(
    tmp_path: Path, write_records: Write
) -> None:
    values = files(tmp_path, write_records)
    with (tmp_path / "in/t.jsonl").open("a") as file:  # a second text by the name of the first
        file.write(json.dumps({"id": "clean", "language": "en", "text": f"{LONG} {HOST}", "parallel_id": "own"}) + "\n")
    facts, kept = built(values | {"on_error": "count"}, tmp_path / "out")
    assert kept == {"clean", "q-short", "spared", "dev"}
    assert facts["counts"]["dropped: exam item"] == facts["counts"]["dropped: unreadable: id of another text"] == 1
    assert "clean" not in pq.read_table(tmp_path / "out/leaks.parquet").column("id").to_pylist()


def test_neither_shards_nor_workers_change_what_goes(tmp_path: Path, write_records: Write) -> None:
    values = files(tmp_path, write_records)
    _, kept = built(values, tmp_path / "one")
    records = (tmp_path / "in/t.jsonl").read_text("utf-8").splitlines()
    records = [records[i] for i in (4, 2, 6, 0, 5, 1, 3)]
    for number, line in enumerate(records):
        (tmp_path / f"in/part{number}.jsonl").write_text(line + "\n", "utf-8")
    _, parted = built(values | {"texts": [{"path": "part*.jsonl"}]}, tmp_path / "many")
    assert parted == kept
    for name in ("leaks.json", "leaks.parquet"):
        assert sha256_file(tmp_path / "one" / name) == sha256_file(tmp_path / "many" / name)
