"""The suite as ordinary lm-eval tasks: two YAML files for each exam and language, made from the table.

lm-eval fixes the type of a request in the file, and all else can be given with `--metadata`. So one
file compares given answers (`scoring`: letter, or option) and one has the model write (generate, or
chain); what they share stands in a file that both include. Documents are those of `prompting`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import yaml

from polyclinic.errors import UsageError
from polyclinic.evaluate.parse import read
from polyclinic.evaluate.prompting import asked, subsets
from polyclinic.evaluate.protocol import GENERATED, PROTOCOLS, Protocol
from polyclinic.evaluate.suite.loading import Loaded, load
from polyclinic.evaluate.suite.table import Exam, exams

WRITES = "_generate"
HEAD = "# Made by scripts/build_tasks.py from data/exams.yaml.\n"
# What `--metadata` may set of a protocol. The seed has a name of its own: arguments of a model,
# which lm-eval adds to the metadata, have a `seed` as well.
SEED = "shots_seed"
SETTABLE = {field.name for field in fields(Protocol)} - {"seed"}
SHARED = {
    "test_split": "test",
    "doc_to_text": "prompt",
    "doc_to_target": "gold",
    "target_delimiter": " ",
    "num_fewshot": 0,
}


class Code(str):
    """The name of a function of this module, which a task file calls."""


class _Dumper(yaml.SafeDumper):
    """Writes such a name with lm-eval's tag, and no value as a reference to another."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that stands twice twice."""
        return True


_Dumper.add_representer(Code, lambda dumper, name: dumper.represent_scalar("!function", f"{__name__}.{name}"))


def task_name(exam: str, code: str, scoring: str = "letter") -> str:
    """Return the task that asks an exam in a language; those that write have a name of their own."""
    return f"polyclinic_{exam}_{code}" + (WRITES if scoring in GENERATED else "")


def files() -> dict[str, str]:
    """Return the text of every task file by its path below the folder."""
    out = {"compare/shared": _text(_compare()), "several/shared": _text(_several()), "write/shared": _text(_write())}
    for exam in exams().values():
        if exam.kind == "lm-eval":
            continue
        for code in exam.languages:
            kind = "several" if exam.several else "compare"
            out[f"{kind}/{exam.name}_{code}.yaml"] = _text(config(exam, code, "letter"))
            out[f"write/{exam.name}_{code}.yaml"] = _text(config(exam, code, "generate"))
    return out


def config(exam: Exam, code: str, scoring: str) -> dict[str, Any]:
    """Return what stands in one task file; tags name the suite, kind, exam and language."""
    tags = ["polyclinic", f"polyclinic_{exam.kind}", f"polyclinic_{exam.name}", f"polyclinic_{code}"]
    tags += ["polyclinic_paper"] * exam.paper
    tags = list(dict.fromkeys(tag + (WRITES if scoring in GENERATED else "") for tag in tags))
    metadata = {"version": exam.version, "exam": exam.name, "language": code, "scoring": scoring}
    name = task_name(exam.name, code, scoring)
    return {"include": "shared", "task": name, "tag": [tag for tag in tags if tag != name], "metadata": metadata}


def _compare() -> dict[str, Any]:
    """Return what tasks share that compare given answers; acc_bytes is for options, acc for letters."""
    return {
        "custom_dataset": Code("documents"),
        "output_type": "multiple_choice",
        **SHARED,
        "doc_to_choice": "choices",
        "metric_list": _metrics("acc", "acc_bytes"),
    }


def _several() -> dict[str, Any]:
    """Return the same where any set of letters may be right."""
    return {
        **_compare(),
        "process_results": Code("set_results"),
        "metric_list": _metrics("acc", "hamming"),
    }


def _write() -> dict[str, Any]:
    """Return what tasks share in which the model writes; an answer ends where another question could begin."""
    return {
        "custom_dataset": Code("documents"),
        "output_type": "generate_until",
        **SHARED,
        "process_results": Code("written_results"),
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": PROTOCOLS["generate"].new_tokens},
        "metric_list": [*_metrics("acc", "hamming"), *_metrics("unparsed", better=False)],
    }


def _metrics(*names: str, better: bool = True) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": better} for name in names]


def _text(data: Mapping[str, Any]) -> str:
    return HEAD + yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def protocol(metadata: Mapping[str, Any]) -> Protocol:
    """Return the protocol that metadata asks for: that of its scoring, or the one it names, with its changes.

    Whatever else stands there is not ours. Raises UsageError for a protocol or value that is none.
    """
    scoring = metadata["scoring"]
    named = metadata.get("protocol", scoring)
    if named not in PROTOCOLS or scoring not in PROTOCOLS:
        raise UsageError("--metadata", f"there is no protocol '{named}'", f"one of: {', '.join(PROTOCOLS)}")
    given = {key: value for key, value in metadata.items() if key in SETTABLE}
    if SEED in metadata:
        given["seed"] = metadata[SEED]
    for key, value in given.items():
        default = getattr(Protocol(), key)
        if type(value) is not type(default) and not (default is None and type(value) is int):
            raise UsageError("--metadata", f"{key} is {value!r}", f"give a value such as {default!r}")
    return replace(PROTOCOLS[named], **given)


def documents(exam: str, language: str, **metadata: Any) -> dict[str, Any]:
    """Return an exam's documents as the data set of a task; lm-eval calls it with the task's metadata."""
    from datasets import Dataset

    how = protocol(metadata)
    loaded = load(exams()[exam], language)
    texts = {question.id: list(question.options) for question in loaded.questions}
    reading = {"several": loaded.exam.several, "protocol": how.facts()}  # what a written answer is read by
    return {"test": Dataset.from_list([{**doc, "texts": texts[doc["id"]], **reading} for doc in prompts(loaded, how)])}


def prompts(loaded: Loaded, how: Protocol) -> list[dict[str, Any]]:
    """Return the documents of a loaded exam under a protocol in order, without those it has no room for."""
    if loaded.exam.several and not how.first_letter and how.scoring == "option":
        what = "option scoring compares single options, and several may be right"
        raise UsageError(loaded.name, what, "score letters or written answers")
    found = (asked(q, loaded.questions, loaded.pool, how, loaded.exam.several) for q in loaded.questions)
    return [one for one in found if one is not None]


def set_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Score the likeliest set of letters: whether it is the right one, and its overlap with it."""
    best = max(range(len(results)), key=lambda i: results[i][0])
    picked = subsets(doc["options"])[best] if len(results) > doc["options"] else (best,)
    return _score(doc, picked)


def written_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score what a model wrote; what cannot be read is counted and not right."""
    picked = read(results[0], doc["language"], doc["texts"], doc["several"], Protocol(**doc["protocol"]))
    return {**_score(doc, picked or ()), "unparsed": float(picked is None)}


def _score(doc: Mapping[str, Any], picked: Sequence[int]) -> dict[str, float]:
    """Return exact match, and the share of what is right or picked that is both."""
    right, said = set(doc["answers"]), set(picked)
    return {"acc": float(said == right), "hamming": len(said & right) / len(said | right)}
