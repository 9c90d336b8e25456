"""Ablation: each part is tuned on its own text alone, from one base, and compared on the same unseen texts."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic.ablation import ALL, BASE, BYTES_PER_TOKEN, ONLY, WITHOUT, Part, compare, enough, parts
from polyclinic.corpus.build import read_documents
from polyclinic.corpus.tables import read_rows
from polyclinic.errors import DataError
from polyclinic.evaluate.loss import held_out_loss
from polyclinic.journey import run
from polyclinic.progress import Silent
from polyclinic.recipe import AblateSection, Recipe
from polyclinic.records import Turn
from polyclinic.runs import read_json, write_json

TWO = ["en", "zh"]


def recipe(**ablate: Any) -> Recipe:
    values = small.recipe(ablate={"languages": TWO, **ablate})
    corpus = values.corpus.model_copy(update={"decontaminate": None})
    return values.model_copy(update={"corpus": corpus})


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation") / "run"
    did = run(recipe(), out, Silent()).did
    tuned = ["ablate-base", "ablate-all", "ablate-only-en", "ablate-only-zh"]
    assert did == ["corpus", "tokenizer", "packed", "base", *tuned, "ablate"]
    return out


def test_a_finished_ablation_is_not_done_again_and_a_language_more_costs_one_tuning(
    walked: Path, tmp_path: Path
) -> None:
    assert run(recipe(), walked, Silent()).did == []
    copy = Path(shutil.copytree(walked, tmp_path / "run"))
    assert run(recipe(resamples=200), copy, Silent()).did == ["ablate"]
    assert run(recipe(languages=["en", "th", "zh"]), copy, Silent()).did == ["ablate-only-th", "ablate"]


def test_every_part_has_a_step_of_its_own_whatever_it_is_called() -> None:
    names = [Part(WITHOUT, name).step() for name in ("web", "Web", "we b", "we/b", "../web", "книги", "本", "")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)


def test_the_base_is_scored_as_it_is(walked: Path) -> None:
    rows = read_json(walked / "ablate-base" / "losses.json")
    asked = [d for d in read_documents(walked / "corpus") if d.split == "held_out"]
    expected = held_out_loss(walked / "base", asked)
    for code in small.LANGUAGES:
        found = [row for row in rows if row["language"] == code]
        mean = sum(row["nats"] for row in found) / sum(row["tokens"] for row in found)
        assert mean == pytest.approx(expected[code]["loss"], rel=1e-9)


def test_no_tuning_sees_the_text_it_is_scored_on_and_checkpoints_do_not_stay(walked: Path) -> None:
    scored = {row["id"] for row in read_json(walked / "ablate-base" / "losses.json")}
    trained = {row["id"] for row in read_rows(walked / "packed" / "packed-records.parquet")}
    assert scored
    assert not scored & trained
    assert {p.name for p in (walked / "ablate-only-en").iterdir()} == {"losses.json", "manifest.json"}


def test_changes_are_those_of_the_losses_and_stand_in_their_intervals(walked: Path) -> None:
    result = read_json(walked / "ablate" / "ablation.json")
    before, after = (read_json(walked / f"ablate-{name}" / "losses.json") for name in ("base", "only-en"))
    for code in small.LANGUAGES:
        pairs = [
            (a["nats"] - b["nats"], a["tokens"]) for b, a in zip(before, after, strict=True) if a["language"] == code
        ]
        row = result["only"]["en"][code]
        assert row["change"] == pytest.approx(sum(gain for gain, _ in pairs) / sum(n for _, n in pairs), rel=1e-9)
        assert row["low"] <= row["change"] <= row["high"]
    assert result["only"]["en"]["en"]["change"] < 0  # own text helps
    assert result["only"]["en"]["en"]["change"] < result["only"]["zh"]["en"]["change"]


def test_the_report_and_the_card_show_it_and_name_no_mixture(walked: Path) -> None:
    html = (walked / "report.html").read_text("utf-8")
    assert "What each text is worth" in html
    card, page = read_json(walked / "ablate" / "card.json"), (walked / "ablate" / "card.html").read_text("utf-8")
    assert card["ablation"] == read_json(walked / "ablate" / "ablation.json")
    assert card["tokens"] == read_json(walked / "packed" / "packs.json")["tokens"]
    assert card["languages"] == read_json(walked / "corpus" / "card.json")["languages"]
    assert "What each text is worth" in page
    assert f"{card['ablation']['only']['en']['en']['change']:+.3f}" in page
    assert "Who helps whom" in html
    assert "family expert" not in html.partition("<section>")[0]


def texts() -> list[Any]:
    found = small.documents(2)
    return [replace(d, category="dialogues" if d.id.endswith("0") else "web") for d in found]


def test_parts_are_the_base_all_each_language_and_each_category() -> None:
    languages = [Part(ONLY, code) for code in sorted(small.LANGUAGES)]
    expected = [Part(BASE), Part(ALL), *languages, Part(WITHOUT, "dialogues"), Part(WITHOUT, "web")]
    assert parts(AblateSection(), texts()) == expected
    assert parts(AblateSection(languages=["zh"], categories=["web"]), texts())[2:] == [
        Part(ONLY, "zh"),
        Part(WITHOUT, "web"),
    ]


def test_a_part_keeps_its_own_text_and_no_other() -> None:
    documents = texts()
    assert {d.language for d in documents if Part(ONLY, "th").keeps(d)} == {"th"}
    assert {d.category for d in documents if Part(WITHOUT, "web").keeps(d)} == {"dialogues"}
    assert all(Part(ALL).keeps(d) for d in documents)


def test_one_category_alone_is_never_left_out() -> None:
    assert parts(AblateSection(languages=["en"]), small.documents(1)) == [Part(BASE), Part(ALL), Part(ONLY, "en")]


@pytest.mark.parametrize("asked", [{"languages": ["ru"]}, {"categories": ["books"]}])
def test_a_part_that_no_text_has_is_an_error_that_lists_what_there_is(asked: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match="no training text of") as caught:
        parts(AblateSection.model_validate(asked), texts())
    assert "web" in caught.value.try_ or "zh" in caught.value.try_


def test_a_category_is_held_against_all_text_and_a_language_against_the_base(tmp_path: Path) -> None:
    nats = {Part(BASE): 3.0, Part(ALL): 2.0, Part(ONLY, "en"): 2.5, Part(WITHOUT, "web"): 2.25}
    measured = {}
    for number, (part, value) in enumerate(nats.items()):
        measured[part] = tmp_path / str(number)
        measured[part].mkdir()
        rows = [{"language": "en", "nats": value * n, "tokens": n, "group": str(n)} for n in (4, 8)]
        write_json(measured[part] / "losses.json", rows)
    compare(recipe(), measured, tmp_path)
    result = read_json(tmp_path / "ablation.json")
    assert result["all"]["en"]["change"] == pytest.approx(-1.0)
    assert result["only"]["en"]["en"]["change"] == pytest.approx(-0.5)
    assert result["without"]["web"]["en"]["change"] == pytest.approx(0.25)
    assert math.isclose(result["all"]["en"]["low"], result["all"]["en"]["high"])  # the same change in each text


def test_a_tuning_gets_as_much_text_as_its_steps_read_drawn_over_all_of_it() -> None:
    documents = [
        replace(d, id=f"{n}-{d.id}", turns=(replace_content(d),)) for n in range(40) for d in small.documents(2)
    ]
    asked = recipe()
    found = enough(documents, asked)
    wanted = asked.train.steps * asked.train.batch_packs * asked.corpus.pack_tokens  # type: ignore[operator]
    assert wanted * BYTES_PER_TOKEN <= sum(len(d.text().encode()) for d in found)
    assert sum(len(d.text().encode()) for d in found[:-1]) < wanted * BYTES_PER_TOKEN
    assert len({d.language for d in found}) == len(small.LANGUAGES)
    assert len(found) == len({d.id for d in found}) < len(documents)
    assert enough(documents, asked) == found
    assert sorted(d.id for d in enough(documents[:5], asked)) == sorted(d.id for d in documents[:5])


def replace_content(document: Any) -> Turn:
    return Turn("text", document.text() * 4)
