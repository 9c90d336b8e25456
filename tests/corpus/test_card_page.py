"""The card as a page and as a dataset's README: figures are those of the card, nothing is fetched, gaps are said."""

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.card import hub_card
from polyclinic.corpus.card.card import collect, write_card
from polyclinic.corpus.card.card_figures import bars, ring
from polyclinic.corpus.card.card_page import as_page
from polyclinic.corpus.card.gaps import gaps
from polyclinic.corpus.card.measures import medians
from polyclinic.corpus_section import CorpusSection
from polyclinic.families import load_preset
from polyclinic.figures import COLOURS
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn
from polyclinic.runs import read_json

PRESET = load_preset("balanced")


def document(number: int, code: str = "ar", category: str = "", **changes: str) -> Document:
    values = {"source": "s", "licence": "MIT", "group": "g", "split": "train", **changes}
    return Document(str(number), code, turns=(Turn("text", "x" * number),), category=category, **values)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter")
    values = {"texts": [{"starter": True}], "exams": [{"starter": True}], "languages": ["ar", "en", "he"]}
    build(CorpusSection.model_validate(values), folder, Silent())
    return folder


def cells(html: str) -> list[list[str]]:
    """Return the text of all rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


def test_the_page_fetches_nothing_and_shows_each_language_in_its_own_direction(built: Path) -> None:
    html = (built / "card.html").read_text("utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=|url\(|@import", html)
    assert '<bdi lang="ar-Arab" dir="rtl">العربية</bdi>' in html
    row = read_json(built / "card.json")["languages"]["he"]
    assert next(r for r in cells(html) if "he" in r)[-2:] == [f"{row['characters']:,}", str(row["questions"])]


def test_the_figures_have_tokens_where_packing_counted_them() -> None:
    card = {**collect([document(5, category="web"), document(9, "en", "books")], []), "counts": {}, "rows_in": 2}
    packed = [("ar", "web", 30), ("ar", "books", 4), ("en", "books", 6)]
    packs = {
        "tokens": {"ar": 34, "en": 6},
        "groups": [{"language": code, "category": category, "packed": n} for code, category, n in packed],
    }
    html = as_page(card, PRESET, packs)
    assert "web 75.0 %" in html
    assert "books 25.0 %" in html
    assert [row[6:8] for row in cells(html) if row[1:2] == ["العربية"]] == [["5", "34"]]
    assert "web 35.7 %" in as_page(card, PRESET)  # 5 of 14 characters


def test_what_was_read_cannot_become_markup() -> None:
    found = [document(1, source="<b>&", url="https://a/<i>"), document(2, category="<u>"), document(3, category="v")]
    card = {**collect(found, []), "counts": {}, "rows_in": 3, "gaps": ["<s>"]}
    html = as_page(card, PRESET)
    assert not re.search("<[biu]>|<s>", html)
    assert "&lt;b&gt;&amp;" in html


def test_the_ring_goes_once_round_and_sums_up_what_is_past_its_colours() -> None:
    amounts = {f"kind {i}": 2**i for i in range(9)}
    drawn = ring(amounts, "t")
    ends = [re.match(r"M(\S+ \S+)A\S+ \S+ 0 \d 1 (\S+ \S+)L", path) for path in re.findall('<path d="([^"]+)"', drawn)]
    turns = [match.groups() for match in ends if match]
    assert len(turns) == len(COLOURS)
    assert all(a[1] == b[0] for a, b in zip(turns, [*turns[1:], turns[0]], strict=True))
    assert f"other {100 * 7 / 511:.1f} %" in drawn
    assert "100.0 %" in ring({"a": 3, "b": 0}, "t")


def test_bars_are_long_by_the_logarithm_and_coloured_by_group() -> None:
    drawn = bars([("A", [("a", 10), ("b", 1000)]), ("B", [("c", 100), ("d", 0)])], "tokens", "t")
    found = re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*fill="(\S+?)"', drawn)
    widths = [float(width) for width, _ in found]
    assert widths == [1.0, 420.0, 210.0, 0.0]  # the smallest begins the axis and is still seen; nothing has no bar
    assert [colour for _, colour in found] == [COLOURS[0], COLOURS[0], COLOURS[1], COLOURS[1]]


def test_gaps_name_what_is_missing_where() -> None:
    found = [
        document(20_000, "en", "web", licence="CC-BY-4.0"), document(30, "en", "exams", split="held_out"),
        document(40, "sw", "web", licence="unknown", source="u"), document(50, "ckb", "web", split="held_out"),
    ]  # fmt: skip
    card = collect(found, []) | {"wanted": ["en", "sw", "ckb", "mt"], "counts": {"language: ckb not checked": 1}}
    said = gaps(card)
    for line in (
        "No training text: ckb, mt.",
        "Fewer than 10,000 characters of text: ckb, sw.",
        "No held-out text: mt, sw.",
        "No exam questions: ckb, en, mt, sw.",
        "No text of category 'exams': ckb, sw.",
        "Licence unknown: u.",
        "Attribution is due but no address is known: s.",
        "Text whose language was not checked: ckb.",
        "No clinician and no native speaker is known to have reviewed this text.",
    ):
        assert line in said
    assert not [line for line in said if "'web'" in line]
    assert gaps(collect([document(20_000)], []) | {"counts": {}})[-2].startswith("The sources do not say what category")


def test_the_address_of_a_source_is_what_its_documents_have_in_common() -> None:
    urls = {"a": ["https://x.org/d/1", "https://x.org/d/12"], "b": ["https://x.org/1"], "c": ["https://x", "http://y"]}
    found = [document(i, source=source, url=url) for source, all_of in urls.items() for i, url in enumerate(all_of, 1)]
    shared = {row["source"]: row["url"] for row in collect(found, [])["sources"]}
    assert shared == {"a": "https://x.org/d/", "b": "https://x.org/1", "c": ""}


def test_steps_show_their_drops_and_agree_with_the_whole(built: Path) -> None:
    card = read_json(built / "card.json")
    steps = card["steps"]
    assert steps[0]["rows_in"] == card["rows_in"]
    for before, after in itertools.pairwise(steps):
        dropped = sum(n for reason, n in before["counts"].items() if reason.startswith("dropped"))
        assert before["rows_in"] - dropped == before["rows_out"] == after["rows_in"]
    assert steps[-1]["rows_out"] == sum(1 for _ in read_documents(built))
    assert any("language not in the recipe" in reason for reason in steps[0]["counts"])


def test_medians_are_of_the_kept_documents_and_of_measures_alone(tmp_path: Path) -> None:
    shards, decisions = [], []
    for i, (values, kept) in enumerate([([1.0, 2.0, 90.0], [1, 1, 0]), ([4.0, None, 6.0], [1, 1, 1])]):
        (shard := tmp_path / str(i)).mkdir()
        marks = {"language": ["en", "en", "sw"], "mark_quality_size": values, "mark_exact": [7, 8, 9]}
        pq.write_table(pa.table({**marks, **({"mark_quality_only": [3, 4, 5]} if i else {})}), shard / "marks.parquet")
        pq.write_table(pa.table({"reason": [None if k else "bad" for k in kept]}), tmp_path / f"{i}.parquet")
        shards.append(shard)
        decisions.append(tmp_path / f"{i}.parquet")
    assert medians(shards, decisions) == {"only": {"en": 3.5, "sw": 5.0}, "size": {"en": 2.0, "sw": 6.0}}
    assert medians([], []) == {}


def test_the_readme_is_a_dataset_card_of_the_hub_and_its_files_load(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    hub, datasets = pytest.importorskip("huggingface_hub"), pytest.importorskip("datasets")
    data = hub.DatasetCard.load(built / "README.md").data
    assert (data.language, data.license, data.size_categories) == (["ar", "en", "he"], ["cc0-1.0"], ["n<1K"])
    assert "Attribution\n\n- polyclinic-starter: licence CC0-1.0" in (built / "README.md").read_text("utf-8")
    splits = [d.split for d in read_documents(built)]
    for split in ("train", "held_out"):
        found = datasets.load_dataset(str(built), split, split=split, cache_dir=str(tmp_path))
        assert set(found["split"]) == {split}
        assert len(found) == splits.count(split) > 0
    questions = datasets.load_dataset(str(built), "questions", split="test", cache_dir=str(tmp_path))
    assert len(questions) == sum(row["questions"] for row in read_json(built / "card.json")["languages"].values())


@pytest.mark.parametrize(("count", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (2 * 10**6, "1M<n<10M")])
def test_sizes_and_licences_are_those_of_the_hub(count: int, size: str) -> None:
    card: dict[str, Any] = {
        "languages": {"en": {"train": count, "characters": 1}},
        "sources": [{"source": "a", "licence": name, "url": ""} for name in ("MIT", "my own", "CC-BY-4.0")],
    }
    head = hub_card.front_matter(card)
    assert head["size_categories"] == [size]
    assert head["license"] == ["cc-by-4.0", "mit", "other"]


def test_equal_corpora_have_equal_cards(tmp_path: Path) -> None:
    found = [document(i, code, category) for i, (code, category) in enumerate([("en", "b"), ("sw", "a"), ("en", "a")])]
    for name, documents in (("one", found), ("two", found[::-1])):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, documents, [], 3, Counter())
    for file in ("card.json", "card.html", "README.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
