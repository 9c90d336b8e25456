"""The page of scores in a real browser: nothing reaches beyond the window, right-to-left text runs so."""

from pathlib import Path

import pytest

from browser import CHROMIUM, measured
from polyclinic.evaluate import opening
from polyclinic.evaluate.parts import of_corpus
from polyclinic.evaluate.report.fragments import fragments
from polyclinic.evaluate.run import run
from polyclinic.page import scores_page
from polyclinic.progress import Silent
from polyclinic.recipe import EvaluateSection
from polyclinic.records import Question

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(models: dict[str, Path], questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shown")
    section = EvaluateSection(protocols=["letter", "generate"], max_questions=2, new_tokens=40, routing="stock")
    asked = opening.local("model", models["mixture"], section, folder / "answers")
    (folder / "evaluate").mkdir()
    run(section, asked, of_corpus(questions), folder / "evaluate", Silent())
    return scores_page("scores", [], fragments(folder / "evaluate"), {})


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_the_page_of_scores_stays_in_the_window_with_all_of_it_open(
    page: str, tmp_path: Path, width: int, dark: bool
) -> None:
    seen = measured(page, tmp_path, width, dark)
    assert seen["reach"][0] <= seen["reach"][1]
    assert seen["1200"] <= 1200
    assert seen["400"] <= 400
    directions = {lang: direction for lang, direction, _ in seen["names"]}
    assert directions["ar-Arab"] == "rtl"
    assert {direction for lang, direction in directions.items() if lang != "ar-Arab"} == {"ltr"}
