"""The analyse step: facts of the report out of counts, from held-out text and without family ids."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import small
from polyclinic.analyse import run as analyse
from polyclinic.analyse.capture import Routes
from polyclinic.analyse.report import fragments
from polyclinic.errors import DataError
from polyclinic.progress import Silent
from polyclinic.prompts import plain_text
from polyclinic.recipe import AnalyseSection
from polyclinic.records import Document, Turn

SECTION = AnalyseSection(shuffles=10, max_documents_per_language=4)
FAMILIES = {"families": [{"name": n} for n in ("Zero", "One", "Two")], "expert_of": {"ar": 2, "en": 0}}


def toy() -> Routes:
    """Two layers, three experts, two picks: Arabic 10 tokens in two documents, English 4, Thai 2."""
    first = [[[4, 0, 2], [0, 0, 6]], [[0, 0, 4], [4, 0, 0]], [[4, 0, 0], [0, 4, 0]], [[0, 2, 0], [0, 2, 0]]]
    every = [[[6, 0, 6], [0, 6, 6]], [[4, 0, 4], [4, 4, 0]], [[4, 4, 0], [0, 4, 4]], [[2, 2, 0], [0, 2, 2]]]
    return Routes([3, 4], ["ar", "ar", "en", "th"], np.array(first), np.array(every))


def walk(mixture: Path, folder: Path, documents: list[Document]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    analyse.run(SECTION, mixture, documents, folder, 0, Silent())
    return json.loads((folder / "routing.json").read_text("utf-8"))


def test_shares_loads_and_tokens_follow_from_the_counts() -> None:
    result = analyse.describe(toy(), FAMILIES, top_k=2, shuffles=10, seed=0)
    assert result["tokens_of"] == {"ar": 10, "en": 4, "th": 2}
    assert result["tokens"] == 16
    assert result["shares"]["3"][0] == {"language": "ar", "shares": [0.5, 0.0, 0.5]}
    assert result["shares"]["4"][1] == {"language": "en", "shares": [0.0, 0.5, 0.5]}
    assert result["layers"][0]["load"] == [16 / 32, 6 / 32, 10 / 32]
    assert [layer["layer"] for layer in result["layers"]] == [3, 4]


def test_the_own_expert_counts_per_token_and_mean_over_layers() -> None:
    own = analyse.describe(toy(), FAMILIES, top_k=2, shuffles=10, seed=0)["own_expert"]
    assert own == {"ar": pytest.approx((10 / 10 + 6 / 10) / 2), "en": pytest.approx((4 / 4 + 0) / 2)}


def test_held_out_text_is_routed_and_described(mixture: Path, tmp_path: Path) -> None:
    texts = [*small.documents(3), *small.documents(6, "held_out", seed=1)]
    result = walk(mixture, tmp_path, texts)
    tokenizer = Tokenizer.from_file(str(mixture / "tokenizer.json"))
    chosen = [d for d in texts if d.split == "held_out"][: 4 * len(small.LANGUAGES)]
    lengths = {code: 0 for code in small.LANGUAGES}
    for document in chosen:
        lengths[document.language] += len(tokenizer.encode(plain_text(document)).ids)
    assert result["tokens_of"] == lengths
    assert result["family_ids"] == "off"
    for rows in result["shares"].values():
        assert [row["language"] for row in rows] == sorted(small.LANGUAGES)
        assert all(sum(row["shares"]) == pytest.approx(1, abs=1e-5) for row in rows)
    assert set(result["own_expert"]) == set(small.LANGUAGES)
    assert fragments(tmp_path)[0].title == "Which expert serves which language"


def test_the_same_seed_gives_the_same_file(mixture: Path, tmp_path: Path) -> None:
    texts = small.documents(4, "held_out")
    assert walk(mixture, tmp_path / "a", texts) == walk(mixture, tmp_path / "b", texts)


def test_one_language_is_refused_in_one_line(mixture: Path, tmp_path: Path) -> None:
    texts = [d for d in small.documents(3, "held_out") if d.language == "en"]
    with pytest.raises(DataError, match="fewer than two languages"):
        walk(mixture, tmp_path, [*texts, *small.documents(3, "train")])


def test_long_texts_are_cut_and_special_names_are_text(mixture: Path, tmp_path: Path) -> None:
    arabic, english, *_ = small.documents(1, "held_out")
    long = replace(arabic, turns=(Turn("text", "fever " * 2000),))
    named = replace(english, turns=(Turn("text", "<|endoftext|>"),))
    tokens = walk(mixture, tmp_path, [long, named])["tokens_of"]
    assert tokens["ar"] == analyse.MAX_TOKENS
    assert tokens["en"] > 1


def test_the_map_frames_the_own_expert_and_names_every_language(mixture: Path, tmp_path: Path) -> None:
    result = walk(mixture, tmp_path, small.documents(2, "held_out"))
    html = fragments(tmp_path)[0].html
    assert html.count('class="heat own"') == len(small.LANGUAGES) * len(result["layers"])
    assert html.count('dir="rtl"') == len(result["layers"])  # Arabic, once a table
    for family in result["families"]:
        assert family["name"].replace("&", "&amp;") in html
