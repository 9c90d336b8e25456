"""The table of exams: read strictly, whole, and true of the installed lm-eval."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from polyclinic.errors import RecipeError
from polyclinic.evaluate.suite.table import exams, read
from polyclinic.families import fifty

LOCAL = {
    "name": "one",
    "title": "One",
    "kind": "local",
    "languages": ["en", "no"],
    "licence": "MIT",
    "options": [4, 4],
    "split": "test",
    "pool": 2,
    "file": "exams/one.jsonl",
}  # fmt: skip
BENCHMARKS = """medqa_us_hub medqa_mcmle medmcqa_hub mmlu_medical_hub mmlu_medical_translated pubmedqa_hub cmb
    cmmlu_medical cmexam headqa_hub frenchmedmcqa_hub igakuqa kormedmcqa medexpqa rumedbench_danet_hub
    apollo_moe_bench"""


def table(*entries: dict[str, Any]) -> dict[str, Any]:
    return read({"exams": list(entries)}, "t.yaml")


def test_every_benchmark_of_the_paper_is_there_with_a_loader() -> None:
    assert {name for name, exam in exams().items() if exam.paper} == set(BENCHMARKS.split())
    assert all(exams()[name].kind == "hub" and exams()[name].seen for name in BENCHMARKS.split())


def test_apollo_moe_bench_has_the_fifty_languages() -> None:
    assert exams()["apollo_moe_bench"].languages == list(fifty())


def test_the_published_translations_are_those_that_the_paper_scores() -> None:
    exam = exams()["mmlu_medical_translated"]
    assert set(exam.languages) == {"ar", "hi", "de", "pt", "fr", "it"}
    assert len(exam.where["source"]) == 4 + 2 * 6


def test_a_local_copy_names_a_benchmark_of_the_paper() -> None:
    copies = {name: exam.copy_of for name, exam in exams().items() if exam.copy_of and exam.kind == "local"}
    assert len(copies) == 7
    assert all(exams()[name].paper for name in copies.values())


def test_every_task_named_by_reference_is_in_lm_eval() -> None:
    tasks = Path(str(files("lm_eval"))) / "tasks"
    paths = [
        path for name in ("global_mmlu", "mmlu_prox", "careqa", "kormedmcqa") for path in (tasks / name).rglob("*")
    ]
    lines = {line for path in paths if path.suffix == ".yaml" for line in path.read_text("utf-8").splitlines()}
    by_reference = [exam for exam in exams().values() if exam.kind == "lm-eval"]
    named = {task for exam in by_reference for code in exam.languages for task in exam.lm_eval_tasks(code)}
    assert len(named) == 41 * 6 + 29 + 2 + 4
    assert [task for task in named if f"task: {task}" not in lines] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nmae": "x"}, "one: nmae Extra inputs"),
        ({"kind": "hub"}, "one: .*hub needs seen, one of hub and github"),
        ({"pool": 0}, "needs shots or pool"),
        ({"file": ""}, "local needs file"),
        ({"options": [5, 4]}, "options are fewest, most"),
        ({"translated": ["de"]}, "translated are some of languages"),
        ({"languages": ["xx"]}, "one: unknown language 'xx'"),
        ({"languages": ["nb"]}, "one: nb is no code of ours; write no"),
        ({"name": "One!"}, "One!: name String should match"),
        ({"copy_of": "two"}, "one: there is no exam 'two'"),
        ({"pool": "2"}, "pool Input should be a valid integer"),
    ],
)
def test_a_wrong_entry_is_one_line_that_names_it(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        table({**LOCAL, **change})


def test_two_exams_of_one_name_and_names_that_mean_two_things_are_refused() -> None:
    assert set(table(LOCAL, {**LOCAL, "name": "two"})) == {"one", "two"}
    with pytest.raises(RecipeError, match="one: stands there twice"):
        table(LOCAL, LOCAL)
    with pytest.raises(RecipeError, match="one_no: is also an exam and its language"):
        table(LOCAL, {**LOCAL, "name": "one_no"})
    with pytest.raises(RecipeError, match="one key 'exams'"):
        read({"exam": []}, "t.yaml")
