"""Quality: limits drop at once, percentiles by language and never more than they name, files enter the keys."""

from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.quality import quality, terms
from polyclinic.corpus.quality.percentiles import beyond, outermost
from polyclinic.corpus.quality.quality import marked
from polyclinic.corpus.step import REASON
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import CorpusSection, QualitySection
from polyclinic.errors import DataError, UnknownLanguageError
from polyclinic.families import fifty
from polyclinic.progress import Silent
from polyclinic.runs import MANIFEST, read_json


def batch(*rows: tuple[str, str]) -> pa.RecordBatch:
    columns = {"turns": [[{"role": "text", "content": text}] for _, text in rows]}
    columns |= {"language": [code for code, _ in rows], "id": list(map(str, range(len(rows))))}
    full = {name: columns.get(name, [""] * len(rows)) for name in DOCUMENTS.names}
    return pa.RecordBatch.from_pydict(full, schema=DOCUMENTS)


def section(**values: Any) -> QualitySection:
    return QualitySection.model_validate(values)


def test_a_document_outside_a_limit_goes_and_the_reason_says_which() -> None:
    asked = section(
        limits={"length": [2, None], "digits": [None, 0.5], "terms": [None, None]},
        min_words=1,
        per_language={"zh": {"limits": {"length": [8, None]}}},
    )
    rows = [
        ("en", "fever"),
        ("en", "two words"),
        ("zh", "患者发烧咳嗽医"),
        ("zh", "患者发烧咳嗽医院"),
        ("en", "12345 ab"),
    ]
    found = quality.mark(batch(*rows), asked, ".")
    assert found.batch.column("id").to_pylist() == ["1", "3"]
    assert found.dropped.column(REASON).to_pylist() == ["quality: length low"] * 2 + ["quality: digits high"]
    assert found.counts == Counter({"dropped: quality: length low": 2, "dropped: quality: digits high": 1})
    assert {found.batch.schema.field(marked(name)).type for name in ("length", "terms")} == {pa.float32()}


def test_languages_mixed_in_a_batch_are_each_measured_as_their_own() -> None:
    rows = [("en", "fever and pain"), ("th", "ไข้ และ ปวด"), ("en", "no"), ("zh", "发烧")]
    together = quality.mark(batch(*rows), section(), ".").batch
    for place, row in enumerate(rows):
        alone = quality.mark(batch(row), section(), ".").batch
        for name in together.schema.names[len(DOCUMENTS) :]:
            assert together.column(name)[place] == alone.column(name)[0]
    assert together.column(marked("terms")).to_pylist()[0] == pytest.approx(9 / 12)


def test_an_empty_batch_has_the_columns() -> None:
    found = quality.mark(batch(), section(), ".").batch
    assert found.num_rows == 0
    assert marked("repetition") in found.schema.names


def test_every_language_of_the_fifty_has_terms_of_its_own_that_are_found_in_themselves() -> None:
    known = terms.load(None)
    assert set(fifty()) <= set(known)
    lines = resources.files("polyclinic.data").joinpath("medical_terms.csv").read_text("utf-8").splitlines()[1:]
    assert len(set(lines)) == len(lines)
    counts = Counter(line.split(",")[0] for line in lines)
    assert min(counts[code] for code in fifty()) >= 40
    rows = [line.split(",") for line in lines]
    found = quality.mark(batch(*((code, term.strip("*")) for code, term in rows)), section(), ".").batch
    assert set(found.column(marked("terms")).to_pylist()) == {1.0}


def test_a_list_of_ones_own_is_used_in_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("term,language\nwater,en\n", "utf-8")
    found = quality.mark(batch(("en", "water fever"), ("th", "ไข้")), section(terms="own.csv"), str(tmp_path)).batch
    assert found.column(marked("terms")).to_pylist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("content", "error", "where"),
    [
        ("language,term\nen,fever\nen,\n", DataError, "own.csv:3"),
        ("language,term\nen,**\n", DataError, "own.csv:2"),
        ("language,term\nqqq,fever\n", UnknownLanguageError, "own.csv:2"),
        ("code,term\nen,fever\n", DataError, "own.csv"),
    ],
)
def test_a_broken_list_is_named_with_its_line(tmp_path: Path, content: str, error: type, where: str) -> None:
    (tmp_path / "own.csv").write_text(content, "utf-8")
    with pytest.raises(error) as caught:
        terms.load(tmp_path / "own.csv")
    assert caught.value.where == where


@settings(deadline=None)
@given(
    values=st.lists(st.integers(0, 4) | st.floats(0, 1), min_size=1, max_size=60),
    low=st.floats(0, 100),
    high=st.floats(0, 100),
    draw=st.randoms(),
)
def test_percentiles_drop_at_most_their_share_and_equals_alike(
    values: list[float], low: float, high: float, draw: Any
) -> None:
    given_values = np.array(values, dtype=np.float64)
    below, above = outermost(given_values, low, high)
    assert below.sum() <= len(values) * low / 100 + 1e-6
    assert above.sum() <= len(values) * (100 - high) / 100 + 1e-6
    for gone, sign in ((below, 1), (above, -1)):
        if gone.any() and not gone.all():
            assert (sign * given_values[gone]).max() < (sign * given_values[~gone]).min()
            more = (sign * given_values <= (sign * given_values[~gone]).min()).sum()
            share = low if sign == 1 else 100 - high
            assert more > len(values) * share / 100 - 1e-6, "one value more would have been too many"
    order = list(range(len(values)))
    draw.shuffle(order)
    assert (outermost(given_values[order], low, high)[0] == below[order]).all()


def test_no_end_drops_nothing_and_a_hundredth_of_two_hundred_is_two() -> None:
    values = np.arange(200.0)
    assert [gone.sum() for gone in outermost(values, None, None)] == [0, 0]
    assert np.flatnonzero(outermost(values, None, 99)[1]).tolist() == [198, 199]
    assert np.flatnonzero(outermost(values, 1, None)[0]).tolist() == [0, 1]


def marks_of(codes: list[str], **columns: list[float]) -> pa.Table:
    names = {"source": ["s"] * len(codes), "language": codes, "id": list(map(str, range(len(codes))))}
    return pa.table(names | {marked(name): pa.array(values, pa.float32()) for name, values in columns.items()})


def test_each_language_has_its_own_percentiles_and_small_ones_are_left_alone() -> None:
    codes = ["en"] * 100 + ["th"] * 100 + ["zh"] * 9
    marks = marks_of(codes, length=[*range(100), *range(1000, 1100), *range(9)])
    asked = section(percentiles={"length": [1, 98]}, per_language={"th": {"percentiles": {"length": [None, 99]}}})
    counts: Counter[str] = Counter()
    found = beyond(marks, np.ones(209, dtype=np.bool_), asked, ".", counts)
    assert found == {0: "quality: length low", 98: "quality: length high", 99: "quality: length high"} | {
        199: "quality: length high"
    }
    assert counts == {"quality: zh has too few documents for a percentile": 9}
    standing = np.ones(209, dtype=np.bool_)
    standing[[0, 150]] = False  # 99 English documents are too few, 99 Thai as well
    assert beyond(marks, standing, asked, ".", Counter()) == {}


def test_short_documents_are_judged_by_their_length_alone() -> None:
    rows = [("en", "1 2 3 4 5 6 7 8 9"), ("en", "1 2 3 4 5 6 7 8 9 10"), ("th", str(2**138)), ("th", str(2**148))]
    found = quality.mark(batch(*rows), section(min_words=10, limits={"length": [9, None]}), ".")
    assert found.batch.column("id").to_pylist() == ["0", "2"]
    assert found.counts == {"dropped: quality: digits high": 2}
    values, lengths = [*range(150), 1000.0], [*[10.0] * 150, 9.0]
    marks = marks_of(["en"] * 151, length=lengths, symbols=values)
    asked = section(min_words=10, percentiles={"symbols": [None, 99], "length": [1, None]})
    reasons = beyond(marks, np.ones(151, dtype=np.bool_), asked, ".", Counter())
    assert reasons == {149: "quality: symbols high", 150: "quality: length low"}


def test_what_is_ordinary_goes_by_no_percentile() -> None:
    values = [*np.linspace(0, 0.15, 197), 0.25, 0.4, 0.4]
    marks = marks_of(["en"] * 200, length=[99.0] * 200, repetition=values)
    whole = np.ones(200, dtype=np.bool_)
    for high, rows in ((98, {197, 198, 199}), (99, {198, 199}), (99.5, set()), (90, {197, 198, 199})):
        asked = section(percentiles={"repetition": [2, high]})
        found = beyond(marks, whole, asked, ".", Counter())
        gone = {0, 1, 2, 3} | rows
        assert set(found) == gone
    asked = section(percentiles={"repetition": [None, 90]}, ordinary={"repetition": None})
    assert len(beyond(marks, whole, asked, ".", Counter())) == 20
    spared = {"en": {"ordinary": {"repetition": [None, 0.3]}}}
    asked = section(percentiles={"repetition": [None, 90]}, per_language=spared)
    assert set(beyond(marks, whole, asked, ".", Counter())) == {198, 199}


def difficulty_file(path: Path, rows: list[tuple[str, str, float | None]]) -> Path:
    columns = {"source": ["s"] * len(rows), "language": [r[0] for r in rows], "id": [r[1] for r in rows]}
    columns |= {name: pa.array([r[2] for r in rows], pa.float32()) for name in ("perplexity", "ifd", "gap")}
    pq.write_table(pa.table(columns), path)
    return path


def test_difficulty_is_joined_by_name_and_what_is_missing_is_counted_and_kept(tmp_path: Path) -> None:
    marks = marks_of(["en"] * 103, length=[1.0] * 103)
    rows = [("en", str(i), None if i == 50 else float(i)) for i in reversed(range(101))]
    difficulty_file(tmp_path / "d", [*rows, ("th", "0", 1e9), ("en", "gone", 1e9)])
    asked = section(percentiles={"ifd": [None, 99]}, difficulty="d")
    counts: Counter[str] = Counter()
    assert beyond(marks, np.ones(103, dtype=np.bool_), asked, str(tmp_path), counts) == {100: "quality: ifd high"}
    assert counts == {"quality: ifd not known": 3}
    (tmp_path / "d").write_text("no parquet")
    with pytest.raises(DataError, match="no file of difficulty"):
        beyond(marks, np.ones(103, dtype=np.bool_), asked, str(tmp_path), counts)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"limits": {"length": [3]}}, "two ends"),
        ({"limits": {"length": [3, 2]}}, "lies above"),
        ({"limits": {"ifd": [0, 1]}}, "Extra inputs"),
        ({"percentiles": {"ifd": [0, 99]}}, "needs a file of difficulty"),
        ({"percentiles": {"length": [0, 101]}}, "between 0 and 100"),
        ({"per_language": {"th": {"percentiles": {"gap": [0, 1]}}}}, "needs a file of difficulty"),
    ],
)
def test_ends_that_mean_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        section(**values)


def test_a_new_file_of_difficulty_changes_the_decision_and_no_cleaned_shard(
    tmp_path: Path, section: Callable[..., CorpusSection], write_records: Callable[..., Path]
) -> None:
    rows = [{"id": str(i), "source": "s", "language": "en", "text": f"text {i}"} for i in range(100)]
    write_records(tmp_path / "in/a.jsonl", rows)
    shards, kept = tmp_path / "shards", []
    stamps = set()
    for hardest in (7, 8):
        difficulty_file(tmp_path / f"in/d{hardest}", [("en", str(i), 9.0 if i == hardest else 1.0) for i in range(100)])
        asked = {"percentiles": {"gap": [None, 99]}, "difficulty": f"d{hardest}"}
        corpus = section({"path": "a.jsonl"}, languages=["en"], dedup=None, quality=asked)
        (tmp_path / f"out{hardest}").mkdir()
        facts = build(corpus, tmp_path / f"out{hardest}", Silent(), shards)
        assert facts["counts"]["dropped: quality: gap high"] == 1
        kept.append({d.id for d in read_documents(tmp_path / f"out{hardest}")})
        shard = next((shards / "clean").iterdir())
        stamps.add((shard.stat().st_ino, read_json(shard / MANIFEST)["key"]))
    assert [set(map(str, range(100))) - found for found in kept] == [{"7"}, {"8"}]
    assert len(stamps) == 1
    (tmp_path / "in/d8").unlink()
    with pytest.raises(DataError, match="no such file"):
        quality.digests(corpus)


def test_a_thousandth_of_a_thousand_is_one_whatever_floats_make_of_it() -> None:
    assert outermost(np.arange(1000.0), None, 99.9)[1].sum() == 1
