"""The packaged lm-eval tasks: what the script makes, loaded by lm-eval itself, asking what `prompting` says."""

import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager

from polyclinic.errors import UsageError
from polyclinic.evaluate.literals import languages_with_words
from polyclinic.evaluate.prompting import document, draw, subsets
from polyclinic.evaluate.protocol import PROTOCOLS, Protocol
from polyclinic.evaluate.suite import taskfiles
from polyclinic.evaluate.suite.loading import load, load_all
from polyclinic.evaluate.suite.names import chosen
from polyclinic.evaluate.suite.table import exams, tasks_folder

ROOT = Path(__file__).parents[3]
SPOKEN = [(exam, code) for exam, code in chosen(["all-local"]) if code in languages_with_words()]


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata={"shots": 2})


def requests(task: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return what a task asks, by document."""
    task.build_all_requests()
    out: dict[str, list[tuple[Any, ...]]] = {}
    for instance in task.instances:
        out.setdefault(instance.doc["id"], []).append(instance.args)
    return out


def test_the_committed_files_are_what_the_script_makes() -> None:
    folder = tasks_folder()
    committed = {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in folder.glob("*/*")}
    assert committed == taskfiles.files(), "run scripts/build_tasks.py"


def test_the_page_shows_the_table_as_it_is() -> None:
    script = runpy.run_path(str(ROOT / "scripts/build_tasks.py"))
    text = script["PAGE"].read_text("utf-8")
    assert script["BEGIN"] in text
    assert text == script["rewritten"](text), "run scripts/build_tasks.py"
    assert all(f"| `{name}` |" in text for name in exams())


def test_the_tasks_are_package_data() -> None:
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '"data/tasks/*/*"' in declared


def test_lm_eval_knows_two_tasks_for_each_exam_and_language(manager: TaskManager) -> None:
    pairs = chosen(["all"])
    expected = {taskfiles.task_name(e.name, c, s) for e, c in pairs for s in ("letter", "generate")}
    assert set(manager.all_subtasks) == expected
    assert len(expected) == 2 * len(pairs)


def test_tags_choose_by_kind_language_and_exam(manager: TaskManager) -> None:
    tags = {tag: manager.task_index[tag].tags for tag in manager.all_tags}
    assert tags["polyclinic"] == {taskfiles.task_name(e.name, c) for e, c in chosen(["all"])}
    assert tags["polyclinic_paper_generate"] == {
        taskfiles.task_name(e.name, c, "generate") for e, c in chosen(["paper"])
    }
    assert tags["polyclinic_sw"] == {"polyclinic_tico19_terms_derived_sw", "polyclinic_apollo_moe_bench_sw"}
    assert tags["polyclinic_casimedicos"] == {f"polyclinic_casimedicos_{code}" for code in ("en", "es", "fr", "it")}
    assert tags["polyclinic_local"] | tags["polyclinic_derived"] == {
        taskfiles.task_name(e.name, c) for e, c in chosen(["all-local"])
    }


@pytest.mark.parametrize(("exam", "code"), [p for p in SPOKEN if p[0].kind == "local"] + SPOKEN[-3:],
    ids=lambda value: getattr(value, "name", value))  # fmt: skip
def test_every_local_task_asks_what_the_document_of_each_question_says(
    exam: Any, code: str, data: Path, manager: TaskManager
) -> None:
    protocol = replace(PROTOCOLS["letter"], shots=2)
    loaded = load(exam, code)
    expected = {}
    for question in loaded.questions:
        made = document(question, draw(loaded.pool, question, protocol), protocol, exam.several)
        expected[question.id] = [(made["prompt"], " " + choice) for choice in made["choices"]]
    task = manager.load([taskfiles.task_name(exam.name, code)])["tasks"].popitem()[1]
    assert requests(task) == expected
    assert all(
        len(choices) == (31 if exam.several else len(q.options))
        for q, choices in zip(loaded.questions, expected.values(), strict=True)
    )


def test_a_task_that_writes_sends_the_prompt_alone(data: Path, manager: TaskManager) -> None:
    task = manager.load(["polyclinic_casimedicos_es_generate"])["tasks"].popitem()[1]
    loaded, protocol = load(exams()["casimedicos"], "es"), replace(PROTOCOLS["generate"], shots=2)
    found = requests(task)
    for question in loaded.questions:
        prompt = document(question, draw(loaded.pool, question, protocol), protocol)["prompt"]
        ((sent, options),) = found[question.id]
        assert sent == prompt
        assert (options["until"], options["do_sample"], options["max_gen_toks"]) == (["\n\n"], False, 256)


def test_metadata_changes_the_protocol_and_what_is_a_models_does_not(data: Path) -> None:
    own = {"version": 1, "exam": "headqa", "language": "es", "scoring": "letter"}
    foreign = {"pretrained": "x", "seed": 1234, "dtype": "float32"}
    assert taskfiles.protocol({**own, **foreign}) == PROTOCOLS["letter"]
    changed = taskfiles.protocol({**own, "scoring": "option", "shots": 3, "shots_seed": 7, "most_characters": 900})
    assert changed == Protocol(scoring="option", shots=3, seed=7, most_characters=900)
    assert taskfiles.protocol({**own, "protocol": "paper"}) == replace(PROTOCOLS["paper"], scoring="letter")
    docs = taskfiles.documents(**{**own, "scoring": "option"})["test"]
    assert docs[0]["choices"] == list(load(exams()["headqa"], "es").questions[0].options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shots": "3"}, "shots is '3'; give a value such as 0"),
        ({"shots": True}, "shots is True"),
        ({"most_characters": "many"}, "most_characters is 'many'"),
        ({"protocol": "papers"}, "there is no protocol 'papers'; one of: letter"),
    ],
)
def test_metadata_that_means_nothing_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        taskfiles.protocol({"scoring": "letter", **given})


def test_single_options_of_an_exam_with_several_right_ones_are_not_compared(data: Path) -> None:
    with pytest.raises(UsageError, match="frenchmedmcqa_fr: option scoring compares single options"):
        taskfiles.documents("frenchmedmcqa", "fr", scoring="option")


def test_the_papers_protocol_draws_its_examples_from_what_is_scored(data: Path) -> None:
    loaded = load(exams()["rumedbench_danet"], "ru")
    found = taskfiles.prompts(loaded, replace(PROTOCOLS["letter"], shots=3, shots_from_test=True))
    asked = [q.question for q in loaded.questions]
    shown = Counter(text for doc in found for text in asked if text + "\n" in doc["prompt"])
    assert sum(shown.values()) == 4 * len(found)
    assert not any(q.question in doc["prompt"] for q in loaded.pool for doc in found)


@pytest.mark.parametrize(
    ("best", "answers", "acc", "hamming"),
    [((0, 2), [0, 2], 1.0, 1.0), ((0,), [0, 2], 0.0, 0.5), ((1,), [0, 2], 0.0, 0.0), ((0, 1, 2), [0, 2], 0.0, 2 / 3)],
)
def test_sets_of_letters_are_scored_exactly_and_by_overlap(
    best: tuple[int, ...], answers: list[int], acc: float, hamming: float
) -> None:
    doc = {"options": 3, "answers": answers}
    results = [(-1.0 if one == best else -2.0, False) for one in subsets(3)]
    assert taskfiles.set_results(doc, results) == {"acc": acc, "hamming": pytest.approx(hamming)}


def test_what_a_model_wrote_is_parsed_and_what_cannot_be_is_unparsed_not_right(data: Path) -> None:
    """By our own parser, on a document as lm-eval gets it."""
    docs = taskfiles.documents("headqa", "es", scoring="generate")["test"]
    doc = next(one for one in docs if one["answers"] == [1])
    assert taskfiles.written_results(doc, [doc["texts"][1]]) == {"acc": 1.0, "hamming": 1.0, "unparsed": 0.0}
    assert taskfiles.written_results(doc, ["B"]) == {"acc": 1.0, "hamming": 1.0, "unparsed": 0.0}
    assert taskfiles.written_results(doc, ["?"]) == {"acc": 0.0, "hamming": 0.0, "unparsed": 1.0}


def test_lm_eval_scores_the_tasks_from_end_to_end(data: Path, manager: TaskManager) -> None:
    """With a model that likes the first choice best, the accuracy is how often it is right."""
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate

    class First(LM):
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(-float(request.idx), False) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return []

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return []

    names = ["polyclinic_headqa_es", "polyclinic_frenchmedmcqa_fr", "polyclinic_tico19_terms_derived_sw"]
    found = evaluate(lm=First(), task_dict=manager.load(names), bootstrap_iters=0)["results"]
    for loaded in load_all([name.removeprefix("polyclinic_") for name in names]):
        right = [q.answers == (0,) for q in loaded.questions]
        assert found[f"polyclinic_{loaded.name}"]["acc,none"] == pytest.approx(sum(right) / len(right))


def test_task_files_name_no_place_and_call_nothing_but_the_suite() -> None:
    for text in taskfiles.files().values():
        assert "/" not in text.replace("scripts/build_tasks.py", "").replace("data/exams.yaml", "")
        calls = [line.split()[-1] for line in text.splitlines() if "!function" in line]
        assert all(call.strip("'").startswith("polyclinic.evaluate.suite.taskfiles.") for call in calls)
        kept = yaml.safe_load("\n".join(line for line in text.splitlines() if "!function" not in line))
        assert isinstance(kept, dict)
