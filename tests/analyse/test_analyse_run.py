"""The analyse step: facts of the report out of counts, from held-out text and without family ids."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import small
from polyclinic.analyse import run as analyse
from polyclinic.analyse.asked import Asked
from polyclinic.analyse.counting import Counts
from polyclinic.analyse.report.fragments import fragments
from polyclinic.analyse.route import MAX_TOKENS
from polyclinic.analyse.tally import Tally
from polyclinic.analyse.tally_files import load_tally
from polyclinic.errors import CheckpointError, DataError
from polyclinic.progress import Silent
from polyclinic.prompts import plain_text
from polyclinic.recipe import AnalyseSection
from polyclinic.records import Document, Turn

SECTION = AnalyseSection(shuffles=10, max_documents_per_language=4)


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def toy() -> Tally:
    """Two layers, three experts, two picks: Arabic 10 tokens in two buckets, English 4, Thai 2."""
    first = [[[4, 0, 2], [0, 0, 6]], [[0, 0, 4], [4, 0, 0]], [[4, 0, 0], [0, 4, 0]], [[0, 2, 0], [0, 2, 0]]]
    every = [[[6, 0, 6], [0, 6, 6]], [[4, 0, 4], [4, 4, 0]], [[4, 4, 0], [0, 4, 4]], [[2, 2, 0], [0, 2, 2]]]
    empty = Counts([3, 4], 3, ["ar", "en", "th"], [2, 0, -1]).tally()
    return replace(
        empty,
        top_k=2,
        bucket_language=np.array([0, 0, 1, 2]),
        bucket_number=np.array([0, 1, 0, 0]),
        first_BLE=np.array(first),
        picks_BLE=np.array(every),
        tokens_B=np.array([6, 4, 4, 2]),
        own_GL=np.array([[10, 6], [4, 0], [0, 0]]),
    )


def special_tokenizer(folder: Path) -> None:
    """Make the vocabulary put its end token before and behind every text, as many do."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    name = values["added_tokens"][0]["content"]
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": name, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": name, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [values["added_tokens"][0]["id"]], "tokens": [name]}},
    }
    path.write_text(json.dumps(values), "utf-8")


def walk(mixture: Path, folder: Path, documents: list[Document], **asked: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    analyse.run(SECTION, mixture, documents, folder, 0, Silent(), Asked(**asked))
    return json.loads((folder / "routing.json").read_text("utf-8"))


def test_the_own_expert_counts_per_token_and_mean_over_layers() -> None:
    own = analyse.own_expert(toy(), {"ar": 2, "en": 0})
    assert own == {"ar": pytest.approx((10 / 10 + 6 / 10) / 2), "en": pytest.approx((4 / 4 + 0) / 2)}


def test_what_is_not_a_number_is_null_in_json() -> None:
    value = {"a": [1.5, float("nan"), (2, float("inf"))], "b": {"c": "nan", "d": None, "e": True}}
    assert analyse.plain(value) == {"a": [1.5, None, [2, None]], "b": {"c": "nan", "d": None, "e": True}}


def test_text_is_routed_and_described(mixture: Path, tmp_path: Path) -> None:
    texts = small.documents(6, "held_out", seed=1)
    result = walk(mixture, tmp_path, texts)
    tokenizer = Tokenizer.from_file(str(mixture / "tokenizer.json"))
    lengths = {code: 0 for code in small.LANGUAGES}
    for document in texts:
        lengths[document.language] += len(tokenizer.encode(plain_text(document)).ids)
    assert result["tokens_of"] == lengths
    assert result["family_ids"] == "off"
    assert [row["language"] for row in result["shares"]] == sorted(small.LANGUAGES)
    for row in result["shares"]:
        assert np.sum(row["layers"], axis=1) == pytest.approx([result["top_k"]] * 2)
    assert set(result["own_expert"]) == set(small.LANGUAGES)
    assert fragments(tmp_path)[0].title == "Which expert serves which language"


def test_the_same_seed_gives_the_same_file(mixture: Path, tmp_path: Path) -> None:
    texts = small.documents(4, "held_out")
    assert walk(mixture, tmp_path / "a", texts) == walk(mixture, tmp_path / "b", texts)


def test_one_language_is_refused_in_one_line(mixture: Path, tmp_path: Path) -> None:
    texts = [d for d in small.documents(3, "held_out") if d.language == "en"]
    with pytest.raises(DataError, match="fewer than two languages"):
        walk(mixture, tmp_path, texts)


def test_long_texts_are_cut_and_special_names_are_text(mixture: Path, tmp_path: Path) -> None:
    arabic, english, *_ = small.documents(1, "held_out")
    long = replace(arabic, turns=(Turn("text", "fever " * 2000),))
    named = replace(english, turns=(Turn("text", "<|endoftext|> " * 9),))
    tokens = walk(mixture, tmp_path, [long, named])["tokens_of"]
    assert tokens["ar"] == MAX_TOKENS
    assert tokens["en"] > 9


def test_the_map_frames_the_own_expert_and_names_every_language(mixture: Path, tmp_path: Path) -> None:
    result = walk(mixture, tmp_path, small.documents(2, "held_out"))
    html = fragments(tmp_path)[0].html
    assert html.count('class="heat own"') == len(small.LANGUAGES) * len(result["layers_of"])
    assert html.count('dir="rtl"') == len(result["layers_of"])  # Arabic, once a table
    for family in result["families"]:
        assert family["name"].replace("&", "&amp;") in html


def test_special_tokens_are_seen_by_the_model_and_counted_nowhere(mixture: Path, tmp_path: Path) -> None:
    plain = walk(mixture, tmp_path / "plain", small.documents(3))["tokens_of"]
    copy = shutil.copytree(mixture, tmp_path / "special")
    special_tokenizer(copy)
    assert len(Tokenizer.from_file(str(copy / "tokenizer.json")).encode("word").ids) == 2 + len(
        Tokenizer.from_file(str(mixture / "tokenizer.json")).encode("word").ids
    )
    assert walk(copy, tmp_path / "out", small.documents(3))["tokens_of"] == plain
    ends = load_tally(tmp_path / "out" / "tally.npz").shared.ids_M
    assert 0 not in ends.tolist()


def test_translations_meet_in_buckets_of_one_number(mixture: Path, tmp_path: Path) -> None:
    documents = small.documents(5)
    result = walk(mixture, tmp_path, documents)
    tally = load_tally(tmp_path / "tally.npz")
    assert result["parallel"] == 5
    numbers = [set(tally.bucket_number[tally.bucket_language == g].tolist()) for g in range(4)]
    assert numbers == [set(range(5))] * 4


def test_the_forced_view_stands_apart_and_says_what_would_have_been_picked(mixture: Path, tmp_path: Path) -> None:
    documents = small.documents(4)
    free = walk(mixture, tmp_path / "free", documents)
    both = walk(mixture, tmp_path / "both", documents, forced=True)
    forced = both.pop("forced")
    assert both == free
    tally, other = (load_tally(tmp_path / "both" / name) for name in ("tally_forced.npz", "tally.npz"))
    assert np.array_equal(tally.tokens_B, other.tokens_B)
    for g, code in enumerate(tally.languages):
        own = tally.picks_BLE[tally.bucket_language == g, :, both["expert_of"][code]].sum(0)
        assert (own == tally.tokens_B[tally.bucket_language == g].sum()).all()  # each token has its family's expert
        # the first sparse layer sees the same states, so its router would choose the same
        assert tally.own_GL[g, 0] == other.own_GL[g, 0] < own[0]
    assert forced["family_ids"] == "on"
    assert forced["own_expert_unforced"].keys() == both["own_expert"].keys()


def test_single_tokens_are_written_where_asked(mixture: Path, tmp_path: Path) -> None:
    result = walk(mixture, tmp_path, small.documents(3), tokens=True)
    rows = pq.read_table(tmp_path / "tokens.parquet").to_pylist()
    layers = result["layers_of"]
    assert len(rows) == len(layers) * result["tokens"]
    tally = load_tally(tmp_path / "tally.npz")
    for position, layer in enumerate(layers):
        picks = [pick for row in rows if row["layer"] == layer for pick in row["picks"]]
        assert np.array_equal(np.bincount(picks, minlength=tally.num_experts), tally.picks_BLE[:, position].sum(0))
    assert all(sum(row["weights"]) == pytest.approx(1, abs=1e-5) for row in rows)
    tokenizer = Tokenizer.from_file(str(mixture / "tokenizer.json"))
    document = small.documents(1)[1]
    mine = [r["token"] for r in rows if r["document"] == document.id and r["layer"] == layers[0]]
    assert mine == tokenizer.encode(plain_text(document)).ids


def test_a_mixture_without_families_is_described_and_cannot_be_forced(mixture: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(mixture, tmp_path / "stock")
    (copy / "polyclinic.json").unlink()
    result = walk(copy, tmp_path / "out", small.documents(3))
    assert (result["own_expert"], result["families"]) == ({}, [])
    html = [fragment.html for fragment in fragments(tmp_path / "out")]
    assert "own family expert" not in html[1]
    assert html[0].count('class="heat"') == result["num_experts"] * len(small.LANGUAGES) * len(result["layers_of"])
    with pytest.raises(CheckpointError, match=r"polyclinic\.json"):
        walk(copy, tmp_path / "out", small.documents(3), forced=True)


def test_what_was_left_out_or_cannot_be_compared_is_said(mixture: Path, tmp_path: Path) -> None:
    documents = [replace(d, group=d.id) for d in small.documents(3)]
    documents += [replace(documents[1], id="short", language="fr", turns=(Turn("text", "a"),))]
    heard = Heard()
    analyse.run(SECTION, mixture, documents, tmp_path, 0, heard)
    assert any("left out: fr (1 tokens)" in line for line in heard.said)
    assert any("no parallel texts" in line for line in heard.said)
    assert json.loads((tmp_path / "routing.json").read_text("utf-8"))["left_out"] == {"fr": 1}


def test_a_checkpoint_without_its_vocabulary_is_refused(mixture: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(mixture, tmp_path / "bare")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        walk(copy, tmp_path / "out", small.documents(3))
