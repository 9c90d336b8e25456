"""A fastText model as detector: labels become codes, odds become leads, and its absence is one error."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from polyclinic.corpus.identify import glotlid
from polyclinic.corpus.identify.detectors import Alike
from polyclinic.corpus.identify.glotlid import GlotLid, load
from polyclinic.corpus.identify.identify import GLOTLID, Identifier, detector
from polyclinic.errors import DataError, MissingDependencyError

CHANCES = {"eng_Latn": 0.6, "deu_Latn": 0.2, "srp_Cyrl": 0.1, "srp_Latn": 0.05, "dgo_Deva": 0.03, "xxx_Latn": 0.02}


class Fake:
    """Answers as fastText does: labels and chances, most likely first; a line break is an error."""

    def __init__(self, chances: dict[str, float]) -> None:
        self.chances = chances

    def predict(self, text: str, k: int = 1) -> tuple[tuple[str, ...], tuple[float, ...]]:
        if "\n" in text:
            raise ValueError("predict processes one line at a time")
        ranked = sorted(self.chances.items(), key=lambda item: -item[1])[: None if k < 0 else k]
        return tuple(f"__label__{label}" for label, _ in ranked), tuple(chance for _, chance in ranked)


def model(**chances: float) -> GlotLid:
    return GlotLid(Fake({**CHANCES, **chances}), Alike([["bs", "hr", "sr"]]))


def test_labels_are_our_codes_with_the_scripts_they_name() -> None:
    scripts = {"en": {"Latn"}, "de": {"Latn"}, "sr": {"Cyrl", "Latn"}, "doi": {"Deva"}}
    assert model().known == scripts


def test_leads_are_odds_with_all_scripts_of_a_language_together() -> None:
    found = model().find("a\nline", "sr")
    assert found is not None
    assert found.found == "en"
    assert found.lead == pytest.approx(1000 * math.log(0.6 / 0.15), abs=1)
    assert found.clear == pytest.approx(1000 * math.log(0.6 / 0.2), abs=1)
    assert model(srp_Latn=0.9).find("a", "hr") == model(srp_Latn=0.9).find("a", "sr")


def test_a_text_of_strangers_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glotlid, "MOST", 1)
    assert model(xxx_Latn=0.99).find("a", "en") is None
    assert Identifier(model(xxx_Latn=0.99)).verdict("long enough a text to be judged by any rule of ours", "en") == (
        "not checked"
    )


def test_a_verdict_needs_odds_of_nine_to_one() -> None:
    text = "Long enough a text to be judged by any rule of ours, one would hope."
    assert Identifier(model(eng_Latn=0.7)).verdict(text, "de") == "ok"
    assert Identifier(model(eng_Latn=0.95, deu_Latn=0.01)).verdict(text, "de") == "looks like en"


def test_what_is_missing_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such file"):
        detector(f"{GLOTLID}{tmp_path}/model.bin", ["en"])
    (tmp_path / "model.bin").write_bytes(b"no model")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(MissingDependencyError, match="glotlid"):
        load(tmp_path / "model.bin")

    def refuse(path: str) -> None:
        raise ValueError(f"{path} has wrong file format!")

    monkeypatch.setitem(sys.modules, "fasttext", SimpleNamespace(load_model=refuse))
    with pytest.raises(DataError, match="no fastText model"):
        load(tmp_path / "model.bin")
