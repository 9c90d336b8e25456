"""Exams of the hub, from folders in the very schema of each set and through the same call of `datasets`."""

import csv
import io
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyclinic.errors import DataError, MissingDependencyError
from polyclinic.evaluate.suite import hub
from polyclinic.evaluate.suite.loading import load
from polyclinic.evaluate.suite.rows import NO_ANSWER, NO_OPTIONS, PICTURE
from polyclinic.evaluate.suite.table import Exam, exams
from polyclinic.records import Question

FIVE = ["aorta", "bone", "cilia", "duct", "ear"]
FOUR = FIVE[:4]
LETTERED = dict(zip("ABCD", FOUR, strict=True))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(f"datasets.config.{name}", tmp_path / "cache")


# One record of each set, as it is written there; its right answer is the second option, of five sets also the fourth.
RECORDS: dict[str, dict[str, Any]] = {
    "medqa_us_hub": {"question": "q", "answer": "bone", "options": LETTERED, "meta_info": "step1", "answer_idx": "B"},
    "medqa_mcmle": {"question": "q", "options": LETTERED, "answer": "bone", "meta_info": "x", "answer_idx": "B"},
    "medmcqa_hub": {
        "id": "e9ad", "question": "q", "opa": "aorta", "opb": "bone", "opc": "cilia", "opd": "duct", "cop": 1,
        "choice_type": "single", "exp": "because", "subject_name": "Anatomy", "topic_name": None,
    },
    "mmlu_medical_hub": {"question": "q", "subject": "anatomy", "choices": FOUR, "answer": 1},
    "mmlu_medical_translated": {
        "question": "q", "options": "(A) aorta\n(B) bone\n(C) cilia\n(D) duct", "answer": "(B)",
        "source": "MMLU_anatomy_de", "language": "de", "class": "major",
    },
    "pubmedqa_hub": {
        "pubid": 21645374, "question": "q", "context": {"contexts": ["one.", "two."], "labels": ["A", "B"]},
        "long_answer": "l", "final_decision": "no",
    },
    "cmb": {
        "exam_type": "x", "question": "q", "answer": "BD", "question_type": "多项选择题",
        "option": {"A": "aorta", "B": "bone", "C": "cilia", "D": "duct", "E": "", "F": None},
    },
    "cmmlu_medical": {"": 0, "Question": "q", **LETTERED, "Answer": "B"},
    "cmexam": {
        "Question": "q", "Options": [{"key": k, "value": v} for k, v in LETTERED.items()], "Answer": "BD",
        "Explanation": "e",
    },
    "headqa_hub": {
        "name": "Cuaderno", "year": "2013", "category": "biology", "qid": 1, "qtext": "q", "ra": 2, "image": None,
        "answers": [{"aid": i + 1, "atext": text} for i, text in enumerate(FIVE)],
    },
    "frenchmedmcqa_hub": {
        "id": "5987", "question": "q", "answers": dict(zip("abcde", FIVE, strict=True)), "correct_answers": ["b", "d"],
        "subject_name": "pharmacie", "nbr_correct_answers": 2,
    },
    "igakuqa": {
        "problem_id": "112A1", "problem_text": "q", "choices": FIVE, "text_only": True, "answer": ["b", "d"],
        "points": "1",
    },
    "kormedmcqa": {
        "subject": "doctor", "year": 2022, "period": 1, "q_number": 1, "question": "q",
        **dict(zip("ABCDE", FIVE, strict=True)), "answer": 2, "cot": "",
    },
    "medexpqa": {
        "id": 7, "year": 2016, "full_question": "q", "correct_option": 2, "lang": "it",
        "options": {"1": "aorta", "2": "bone", "3": "cilia", "4": "duct", "5": None},
    },
    "rumedbench_danet_hub": {"context": "c", "question": "q", "answer": "нет", "pairID": "53f9"},
    "apollo_moe_bench": {
        "question": "q", "options": "(A) aorta.\n(B) bone\nA marrow.\n(C) cilia.", "answer": "(B)",
        "source": "cmexam", "language": "sw", "class": "minor",
    },
}  # fmt: skip
LANGUAGE = {"mmlu_medical_translated": "de", "apollo_moe_bench": "sw", "medexpqa": "it", "headqa_hub": "es"}
OPTIONS = {
    "pubmedqa_hub": ["yes", "no", "maybe"], "rumedbench_danet_hub": ["да", "нет"],
    "apollo_moe_bench": ["aorta.", "bone\nA marrow.", "cilia."],
    **dict.fromkeys(("headqa_hub", "frenchmedmcqa_hub", "igakuqa", "kormedmcqa"), FIVE),
}  # fmt: skip
SEVERAL = {"cmb", "cmexam", "frenchmedmcqa_hub", "igakuqa"}


def numbered(record: dict[str, Any], split: str, number: int) -> dict[str, Any]:
    """Return a record that asks something of its own, with an identity of its own where it has one."""
    out = dict(record)
    for key in ("question", "qtext", "full_question", "problem_text", "Question"):
        if key in out:
            out[key] = f"q {split} {number}"
    for key in ("id", "pubid", "problem_id", "pairID"):
        if key in out:
            out[key] = (
                f"{out[key]}{split}{number}" if isinstance(out[key], str) else out[key] * 1000 + hash_of(split, number)
            )
    return out


def hash_of(split: str, number: int) -> int:
    return sum(map(ord, split)) * 10 + number


def save(root: Path, exam: Exam, code: str, found: dict[str, list[dict[str, Any]]]) -> Path:
    """Write the splits of a set as it has them: its own files, an archive of them, or configurations of a folder."""
    if exam.files:
        for split, names in exam.files.items():
            for number, name in enumerate(n.replace("{config}", c) for n in names for c in exam.configs or [""]):
                place(root, exam, name, found[split] if number == 0 else found[split][:1])
    else:
        configs = []
        for config in (c.replace("{language}", code) for c in exam.configs or ["default"]):
            own = [(split, f"data/{config}-{split}.jsonl") for split in found]
            for split, name in own:
                place(root, exam, name, found[split])
            configs.append({"config_name": config, "data_files": [{"split": s, "path": n} for s, n in own]})
        (root / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", "utf-8")
    return root


def place(root: Path, exam: Exam, name: str, found: list[dict[str, Any]]) -> None:
    if name.endswith(".csv"):
        stream = io.StringIO()
        table = csv.DictWriter(stream, list(found[0]))
        table.writeheader()
        table.writerows(found)
        text = "\ufeff" + stream.getvalue()
    elif name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    else:
        text = json.dumps(found, ensure_ascii=False, indent=1)
    root.mkdir(parents=True, exist_ok=True)
    if exam.archive:
        with zipfile.ZipFile(root / exam.archive, "a") as archive:
            archive.writestr(name, text)
    else:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def splits(exam: Exam, record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    count = exam.pool + 3
    return {
        s: [numbered(record, s, n) for n in range(count if s == exam.split else 2)] for s in (exam.split, *exam.shots)
    }


def test_every_exam_of_the_hub_is_tried_here() -> None:
    assert set(RECORDS) == {name for name, exam in exams().items() if exam.kind == "hub"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_set_in_its_own_schema_is_read_as_it_states(name: str, tmp_path: Path) -> None:
    exam, record = exams()[name], RECORDS[name]
    code = LANGUAGE.get(name, exam.languages[0])
    loaded = load(exam, code, at=save(tmp_path / "set", exam, code, splits(exam, record)))
    question: Question = loaded.questions[0]
    assert list(question.options) == OPTIONS.get(name, FOUR)
    assert question.answers == ((1, 3) if name in SEVERAL else (1,))
    assert question.question.startswith("q ")
    assert (question.language, question.source, question.licence) == (code, name, exam.licence)
    assert question.context == {"pubmedqa_hub": "one.\ntwo.", "rumedbench_danet_hub": "c"}.get(name, "")
    assert loaded.pool
    assert not {q.question for q in loaded.pool} & {q.question for q in loaded.questions}
    assert loaded.left_out.keys() <= {"example: another example again", "example: a scored question or its translation"}
    assert len({q.id for q in loaded.questions}) == len(loaded.questions) or name in ("medexpqa", "kormedmcqa")


def test_all_configurations_are_read_and_told_apart(tmp_path: Path) -> None:
    exam = exams()["mmlu_medical_hub"]
    loaded = load(exam, "en", at=save(tmp_path / "s", exam, "en", splits(exam, RECORDS["mmlu_medical_hub"])))
    assert len(loaded.questions) == 6 * 3
    assert {q.id.split(":")[1].rsplit("-", 2)[0] for q in loaded.questions} == set(exam.configs)


def test_only_records_of_the_language_are_taken(tmp_path: Path) -> None:
    exam = exams()["apollo_moe_bench"]
    record = RECORDS["apollo_moe_bench"]
    found = [{**numbered(record, "test", n), "language": ("sw", "no", "mt")[n % 3]} for n in range(75)]
    loaded = load(exam, "no", at=save(tmp_path / "s", exam, "no", {"test": found}))
    assert len(loaded.questions) + len(loaded.pool) == 25
    assert {q.question for q in (*loaded.questions, *loaded.pool)} == {r["question"] for r in found[1::3]}


def test_records_with_a_picture_without_options_or_without_an_answer_are_counted(tmp_path: Path) -> None:
    exam = exams()["igakuqa"]
    found = splits(exam, RECORDS["igakuqa"])
    found["test"][0]["text_only"] = False
    found["test"][1] |= {"choices": [], "answer": ["325"]}
    found["test"][2]["answer"] = []
    left_out: Counter[str] = Counter()
    hub.records(exam, "ja", save(tmp_path / "s", exam, "ja", found), left_out)
    assert left_out == Counter({PICTURE: 30, NO_OPTIONS: 1, NO_ANSWER: 1})  # the first record stands in all files


def test_an_answer_outside_the_options_names_set_split_and_number(tmp_path: Path) -> None:
    exam = exams()["kormedmcqa"]
    found = splits(exam, RECORDS["kormedmcqa"])
    found["test"][1]["answer"] = 6
    with pytest.raises(DataError, match=r"sean0042/KorMedMCQA/doctor/test:2: the answer 6 is none of 5 options"):
        load(exam, "ko", at=save(tmp_path / "s", exam, "ko", found))


@pytest.mark.parametrize("name", ["mmlu_medical_hub", "cmb", "cmmlu_medical", "igakuqa"])
def test_a_hub_that_cannot_be_reached_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded \(.*; check the network") as caught:
        load(exams()[name], exams()[name].languages[0])
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (3, False)


def test_a_set_without_the_split_is_one_line(tmp_path: Path) -> None:
    exam = exams()["medmcqa_hub"]
    at = save(tmp_path / "s", exam, "en", {"train": [RECORDS["medmcqa_hub"]]})
    with pytest.raises(DataError, match=r"openlifescienceai/medmcqa/validation: cannot be loaded \(ValueError"):
        load(exam, "en", at=at)


def test_without_the_package_it_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="needs the package datasets") as caught:
        load(exams()["cmb"], "zh")
    assert caught.value.exit_code == 6


def test_files_are_named_by_set_and_revision(tmp_path: Path) -> None:
    def call(name: str, at: Path | None) -> Any:
        return hub.called(exams()[name], "anatomy", "test", hub.folder(exams()[name], at))

    assert hub.folder(exams()["cmmlu_medical"], None) == "hf://datasets/haonan-li/cmmlu@main/"
    raw = "https://raw.githubusercontent.com/qanastek/FrenchMedMCQA/main/corpus/test.json"
    assert call("frenchmedmcqa_hub", None) == ("json", {"data_files": {"test": [raw]}})
    assert call("mmlu_medical_hub", None) == ("cais/mmlu", {"name": "anatomy", "revision": "main"})
    assert call("mmlu_medical_hub", tmp_path) == (f"{tmp_path}/", {"name": "anatomy"})
