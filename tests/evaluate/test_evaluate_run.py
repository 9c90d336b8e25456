"""The evaluate step: the same items for every model, routing and protocol, scores from them, nothing twice."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic.errors import DataError
from polyclinic.evaluate import opening
from polyclinic.evaluate.answered import read_items
from polyclinic.evaluate.parts import Part, key, limited, of_corpus
from polyclinic.evaluate.report.fragments import fragments
from polyclinic.evaluate.report.markdown import card
from polyclinic.evaluate.report.rows import interval, macro, summary
from polyclinic.evaluate.run import Asked, losses, protocols, run
from polyclinic.intervals import wilson
from polyclinic.progress import Progress, Silent
from polyclinic.recipe import EvaluateSection
from polyclinic.records import Question

SECTION = EvaluateSection(protocols=["letter", "option", "generate"], max_questions=4, sensitivity=2, new_tokens=6)
SHEETS = [
    *(f"base-{name}" for name in SECTION.protocols),
    *(f"mixture-{routing}-{name}" for routing in ("stock", "hybrid") for name in SECTION.protocols),
]


def models_of(models: dict[str, Path], section: EvaluateSection, answers: Path) -> list[Asked]:
    return [one for name, path in models.items() for one in opening.local(name, path, section, answers)]


@pytest.fixture(scope="module")
def done(models: dict[str, Path], questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    texts = [*small.documents(2), *small.documents(3, "held_out", seed=1)]
    leaked = {"benchmark": "exam-0", "language": questions[0].language, "too_short": 0, "leaked_ids": [questions[0].id]}
    asked = models_of(models, SECTION, folder.with_name("answers"))
    family_of, loss = opening.family_of(models["mixture"]), losses(SECTION, models, texts)
    run(SECTION, asked, of_corpus(questions), folder, Silent(), family_of, [leaked], loss)
    return folder


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text("utf-8"))


def sheet(folder: Path, name: str) -> dict[str, Any]:
    return next(one for one in scores(folder)["sheets"] if one["name"] == name)


# What is asked


@pytest.mark.parametrize("cap", [1, 3, None])
def test_each_exam_and_language_keeps_its_first_questions(questions: list[Question], cap: int | None) -> None:
    parts = of_corpus(questions)
    assert {(p.exam, p.language) for p in parts} == {(q.source, q.language) for q in questions}
    for whole, part in zip(parts, limited(parts, cap), strict=True):
        own = [q for q in questions if (q.source, q.language) == (whole.exam, whole.language)]
        assert list(whole.questions) == own
        assert list(part.questions) == own[:cap]


def test_of_an_exam_with_a_test_split_that_is_asked_and_the_rest_is_shown(questions: list[Question]) -> None:
    own = [replace(q, source="one", language="en", split="test" if i % 3 else "train") for i, q in enumerate(questions)]
    (part,) = of_corpus(own)
    assert {q.split for q in part.questions} == {"test"}
    assert {q.split for q in part.pool} == {"train"}
    assert len(part.questions) + len(part.pool) == len(own)
    (whole,) = of_corpus([replace(q, split="dev") for q in own])
    assert len(whole.questions) == len(own)
    assert not whole.pool


def test_the_key_of_what_is_asked_changes_with_every_word(questions: list[Question]) -> None:
    parts = of_corpus(questions)
    other = [*questions[:-1], replace(questions[-1], options=(*questions[-1].options[:-1], "else"))]
    assert key(parts) == key(of_corpus(questions)) != key(of_corpus(other))


def test_examples_that_are_not_there_are_asked_for_in_vain(questions: list[Question], tmp_path: Path) -> None:
    section = EvaluateSection(shots=2)
    with pytest.raises(DataError, match="cannot give 2 examples"):
        run(section, [], of_corpus(questions), tmp_path, Silent())


def test_what_a_section_says_of_all_protocols_stands_over_each() -> None:
    found = protocols(EvaluateSection(protocols=["letter", "paper"], shots=1, instruction="english", seed=7))
    assert [(p.shots, p.instruction, p.seed) for p in found.values()] == [(1, "english", 7)] * 2
    assert protocols(EvaluateSection(protocols=["paper"]))["paper"].shots == 3


# What is found


def test_every_sheet_asks_the_same_and_several_answers_are_scored_where_they_can_be(
    done: Path, questions: list[Question]
) -> None:
    asked = {q.id: q for part in limited(of_corpus(questions), 4) for q in part.questions}
    assert [one["name"] for one in scores(done)["sheets"]] == SHEETS
    for name in SHEETS:
        found = {item.id: item for item in read_items(done / f"items-{name}.jsonl")}
        expected = {i for i, q in asked.items() if not (name.endswith("option") and len(q.answers) > 1)}
        assert set(found) == expected
        assert all(item.gold == asked[i].answers and item.options == len(asked[i].options) for i, item in found.items())
        unasked = sum(n for reasons in sheet(done, name)["unasked"].values() for n in reasons.values())
        assert unasked == len(asked) - len(expected)
    assert any(len(q.answers) > 1 for q in asked.values())


def test_picks_follow_from_the_scores(done: Path) -> None:
    for name in SHEETS:
        for item in read_items(done / f"items-{name}.jsonl"):
            if name.endswith("generate"):
                assert item.scores == ()
            elif len(item.scores) == item.options:
                assert item.picked == (max(range(item.options), key=lambda i: item.scores[i]),)
            else:
                assert len(item.scores) == 2**item.options - 1


def test_rows_follow_from_the_items(done: Path) -> None:
    for name in SHEETS:
        found = read_items(done / f"items-{name}.jsonl")
        for row in (r for r in sheet(done, name)["rows"] if r["level"] == "exam_language"):
            own = [i for i in found if (i.exam, i.language) == (row["exam"], row["language"])]
            right = sum(i.right for i in own)
            assert (row["n"], row["accuracy"]) == (len(own), right / len(own))
            assert (row["wilson_low"], row["wilson_high"]) == pytest.approx(wilson(right, len(own)))
            assert row["unparsed"] == pytest.approx(sum(i.picked is None for i in own) / len(own))


def test_chance_is_that_of_sets_only_where_sets_are_asked_for(done: Path) -> None:
    for name in SHEETS:
        found = read_items(done / f"items-{name}.jsonl")
        for row in (r for r in sheet(done, name)["rows"] if r["level"] == "exam_language"):
            own = [i for i in found if (i.exam, i.language) == (row["exam"], row["language"])]
            odds = [1 / (i.options if name.endswith("option") else 2**i.options - 1) for i in own]
            assert row["chance"] == pytest.approx(sum(odds) / len(odds))


def test_leaked_questions_are_marked_beside_the_score(done: Path, questions: list[Question]) -> None:
    rows = {(r["exam"], r["language"]): r for r in sheet(done, SHEETS[0])["leaks"]}
    own = rows["exam-0", questions[0].language]
    assert (own["leaked"], own["searched"]) == (1, True)
    assert [r["searched"] for k, r in rows.items() if k != ("exam-0", questions[0].language)].count(True) == 0


def test_the_last_model_is_compared_with_the_first_under_each_protocol(done: Path) -> None:
    found = scores(done)["comparison"]
    assert [(one["a"], one["b"]) for one in found] == [(name, f"base-{name.split('-')[-1]}") for name in SHEETS[3:]]
    for one in found:
        a, b = (read_items(done / f"items-{one[k]}.jsonl") for k in ("a", "b"))
        difference = sum(i.right for i in a) - sum(i.right for i in b)
        assert one["micro"]["difference"] == pytest.approx(difference / len(a))


def test_wordings_are_counted_for_each_model_and_kind(done: Path) -> None:
    found = scores(done)["sensitivity"]
    assert list(found) == ["base", "mixture-stock", "mixture-hybrid"]
    for rows in found.values():
        assert {row["kind"] for row in rows} == {"layout", "paraphrase", "typo"}
        assert {row["language"] for row in rows} == set(small.LANGUAGES)
        assert all(row["n"] == 2 and row["ways"] > 1 and row["index"] >= 0 for row in rows)


def test_languages_without_an_exam_are_named(done: Path) -> None:
    missing = scores(done)["missing"]["nothing"]
    assert len(missing) == 50 - len(small.LANGUAGES)
    assert not set(missing) & set(small.LANGUAGES)


def test_items_hold_no_text_but_what_the_model_wrote(done: Path, questions: list[Question]) -> None:
    texts = {text for q in questions for text in (q.question, *q.options)}
    for name in SHEETS:
        for line in (done / f"items-{name}.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            assert not texts & {value for key, value in entry.items() if isinstance(value, str) and key != "raw"}


# Nothing twice


class Counted:
    """What opens a model, and counts what reaches it."""

    def __init__(self, one: Asked) -> None:
        self.one, self.requests = one, 0

    @contextmanager
    def opened(self, progress: Progress) -> Iterator[Any]:
        with self.one.opened(progress) as kept:
            inner = kept.model.loglikelihood

            def counted(requests: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
                self.requests += len(requests)
                return inner(requests, *args, **kwargs)

            kept.model.loglikelihood = counted
            yield kept


def asked_again(
    models: dict[str, Path], questions: list[Question], section: EvaluateSection, folder: Path, answers: Path
) -> int:
    """Return how many requests reached the base in a run."""
    (one,) = opening.local("base", models["base"], section, answers)
    counted = Counted(one)
    folder.mkdir()
    run(section, [one._replace(opened=counted.opened)], of_corpus(questions), folder, Silent())
    return counted.requests


def test_a_second_run_scores_only_what_is_new(
    models: dict[str, Path], questions: list[Question], tmp_path: Path
) -> None:
    answers = tmp_path / "answers"
    few, more = (EvaluateSection(max_questions=n) for n in (2, 3))
    first = asked_again(models, questions, few, tmp_path / "one", answers)
    assert first > 0
    assert asked_again(models, questions, few, tmp_path / "two", answers) == 0
    third = asked_again(models, questions, more, tmp_path / "three", answers)
    whole = sum(len(q.options) for p in limited(of_corpus(questions), 3) for q in p.questions if len(q.answers) == 1)
    assert third == whole - first > 0
    assert (tmp_path / "one/scores.json").read_bytes() == (tmp_path / "two/scores.json").read_bytes()


# What is said


def test_a_run_without_exams_still_shows_the_loss(models: dict[str, Path], tmp_path: Path) -> None:
    loss = losses(SECTION, models, small.documents(1, "held_out"))
    run(SECTION, models_of(models, SECTION, tmp_path / "answers"), [], tmp_path, Silent(), loss=loss)
    assert scores(tmp_path)["sheets"] == []
    assert "No exam questions" in fragments(tmp_path)[0].html
    shown = fragments(tmp_path)[-1]
    assert shown.title == "How well it predicts unseen text"
    assert shown.html.count("<tr>") - 1 == len(small.LANGUAGES)


def test_the_page_shows_every_sheet_and_what_was_not_asked(done: Path) -> None:
    shown = {fragment.title: fragment.html for fragment in fragments(done)}
    for name in SHEETS:
        assert f"<summary>{name}: languages</summary>" in shown["How well it does in each language"]
        assert f"<summary>{name}</summary>" in shown["Single questions"]
    assert "several right answers" in shown["What was not asked"]
    assert "What training changed" in shown
    assert "How much hangs on the wording" in shown


def test_the_card_names_the_protocol_and_both_means(done: Path) -> None:
    text = card(scores(done))
    for name in SHEETS:
        assert f"### {name}" in text
    assert "Protocol: name letter, scoring letter" in text
    assert text.count("**macro over languages**") == text.count("**micro over items**") == len(SHEETS)


def test_the_summary_says_whether_chance_was_beaten(done: Path) -> None:
    one = sheet(done, SHEETS[0])
    over = macro(one)
    assert over is not None
    said = summary(one)
    assert f"{100 * over['accuracy']:.1f} %" in said
    assert over["verdict"] in said
    assert f"of {len(small.LANGUAGES)} languages are above chance" in said


def test_no_interval_is_without_width_where_all_items_agree() -> None:
    row = {"wilson_low": 0.0, "wilson_high": 0.56, "boot_low": 0.0, "boot_high": 0.0}
    assert interval(row) == (0.0, 0.56)
    assert interval({"wilson_low": 0.2, "wilson_high": 0.4, "boot_low": 0.1, "boot_high": 0.3}) == (0.1, 0.4)
    assert interval({"boot_low": 0.1, "boot_high": 0.3}) == (0.1, 0.3)


def test_derived_questions_alone_make_no_mean(
    models: dict[str, Path], questions: list[Question], tmp_path: Path
) -> None:
    parts = [replace(part, derived=True) for part in of_corpus(questions)]
    section = EvaluateSection(max_questions=2)
    run(section, opening.local("base", models["base"], section, tmp_path / "answers"), parts, tmp_path, Silent())
    (one,) = scores(tmp_path)["sheets"]
    assert macro(one) is None
    assert "nothing was asked but derived questions" in summary(one)
    assert set(scores(tmp_path)["missing"]["derived only"]) == set(small.LANGUAGES)
    assert fragments(tmp_path)


def test_an_exam_of_single_answers_is_scored_by_its_letters_alone() -> None:
    question = Question("q", "en", "one", "", "g", "test", "which", ("a", "b", "c"), (1,))
    assert not Part("one", "en", (question,)).several
