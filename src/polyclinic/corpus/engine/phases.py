"""The three phases as tasks: clean each shard, decide over all, select in each shard.

A key holds what its task uses and no more, so a changed setting or input redoes what it touches.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polyclinic
from polyclinic.corpus.ask.answers import FILE as ANSWERS
from polyclinic.corpus.ask.models import model_inputs
from polyclinic.corpus.clean import DOCUMENTS_FILE, DROPPED_FILE, Cleaning, clean
from polyclinic.corpus.decide import Deciding, decide
from polyclinic.corpus.engine import executor
from polyclinic.corpus.engine.engines import Inline
from polyclinic.corpus.engine.executor import Task
from polyclinic.corpus.engine.inputs import Input, Plan, wanted_languages
from polyclinic.corpus.identify.identify import version as version_of_identifier
from polyclinic.corpus.leaks import exam_inputs
from polyclinic.corpus.quality import quality
from polyclinic.corpus.select import Selecting, select
from polyclinic.corpus_section import CorpusSection
from polyclinic.runs import digest, sha256_file

CLEAN, DECIDE, SELECT = "clean", "decide", "select"  # folders of the shards' folder
DECIDED = "all"
LIBRARIES = ("numpy", "py3langid", "pyarrow", "rensa")  # another version may give other bytes

INDEX, EXAMS = "index", "exams"

Manifests = Sequence[Mapping[str, Any]]
Index = tuple[Path | None, Mapping[str, str]]


def key(section: CorpusSection, planned: Plan) -> dict[str, Any]:
    """Return all that decides a corpus, whoever builds it with how many workers."""
    inputs = [(i.name, i.sha256, i.part, i.source.model_dump()) for items in planned for i in items]
    languages = wanted_languages(section)
    settings = {"settings": section.cleaning(), "files": quality.digests(section), "models": model_inputs(section)}
    settings["identifier"] = version_of_identifier(section.identifier)
    return {"inputs": inputs, **settings, "languages": languages, "libraries": libraries()}


@cache
def code() -> str:
    """Return a digest of this stage's code and of the tables it reads: another version may give other bytes."""
    house = Path(polyclinic.__file__).parent
    files = [*(house / "corpus").rglob("*.py"), house / "records.py", house / "languages.py"]
    files += [file for file in (house / "data").iterdir() if file.suffix in (".csv", ".yaml")]
    return digest(sorted((file.relative_to(house).as_posix(), file.read_text("utf-8")) for file in files))


@cache
def libraries() -> dict[str, str]:
    """Return the versions of what else decides bytes."""
    found = {name: version(name) for name in LIBRARIES}
    return {"polyclinic": polyclinic.__version__, "unicode": unicodedata.unidata_version, **found}


def exam_tasks(section: CorpusSection, planned: Plan) -> list[Task]:
    """Write down what training text is searched for, if it is; one task or none."""
    if section.decontaminate is None:
        return []
    items = [*planned.exams, *planned.against]
    key: dict[str, Any] = {
        "exams": [_own(item) for item in items],
        "section": section.decontaminate.model_dump(exclude={"against"}),
    }
    strict = section.on_error == "fail"
    key |= {"own": len(planned.exams), "strict": strict, "privacy": section.privacy.model_dump()}
    key |= {"code": code(), "libraries": libraries()}
    work = partial(exam_inputs.write, planned, section.decontaminate, strict=strict, rule=section.privacy)
    return [Task(EXAMS, key, work)]


def indexed(section: CorpusSection, planned: Plan, place: Path) -> Index:
    """Do the exams' task unless it is done; returns where it lies, and its files by digest."""
    done = executor.run(exam_tasks(section, planned), place / INDEX, Inline(), lambda number, attempt: None)
    return index_of(done, place)


def index_of(done: Manifests, place: Path) -> Index:
    """Return what the exams' task left, from its manifest; nothing where none was asked for."""
    return (place / INDEX / EXAMS, done[0]["outputs"]) if done else (None, {})


def clean_tasks(section: CorpusSection, inputs: Sequence[Input], index: Index, place: Path) -> list[Task]:
    """Clean every input on its own."""
    exams, exam_files = index
    answers = place / ANSWERS if section.rewrite or section.translate else None
    wanted = wanted_languages(section)
    files = {name: value for name, value in quality.digests(section).items() if name != "difficulty"}
    common: dict[str, Any] = {
        "section": section.cleaning_alone(),
        "files": files,
        "wanted": wanted,
        "models": model_inputs(section),
        "identifier": version_of_identifier(section.identifier),
        "code": code(),
        "libraries": libraries(),
        "exams": exam_files,
    }
    return [
        Task(
            item.name,
            {**_own(item), **common},
            partial(clean, Cleaning(item, section, wanted, exams, answers)),
            item.size,
        )
        for item in inputs
    ]


def _own(item: Input) -> dict[str, Any]:
    """Return what an input brings to its key; its file's name is in the ids of records that have none."""
    source = item.source.model_dump(exclude={"path", "max_per_language"})
    return {"source": source, "file": item.file, "sha256": item.sha256, "part": item.part}


def decide_task(section: CorpusSection, inputs: Sequence[Input], cleaned: Manifests, place: Path, index: Index) -> Task:
    """Decide over all shards."""
    shards = [(item.name, item.number, manifest["outputs"]) for item, manifest in zip(inputs, cleaned, strict=True)]
    key = {"shards": shards, "section": section.cleaning(), "files": quality.digests(section)}
    key |= {"code": code(), "libraries": libraries()}
    folders = tuple(place / CLEAN / item.name for item in inputs)
    return Task(DECIDED, key, partial(decide, Deciding(tuple(inputs), folders, section, index[0])))


def select_tasks(inputs: Sequence[Input], cleaned: Manifests, place: Path) -> list[Task]:
    """Carry the decisions out; a shard whose decisions stayed the same is not written again."""
    out = []
    for item, manifest in zip(inputs, cleaned, strict=True):
        shard, decisions = place / CLEAN / item.name, place / DECIDE / DECIDED / f"{item.name}.parquet"
        read = {file: manifest["outputs"][file] for file in (DOCUMENTS_FILE, DROPPED_FILE)}
        key = {"shard": read, "decisions": sha256_file(decisions)}
        key |= {"code": code(), "libraries": libraries()}
        out.append(Task(item.name, key, partial(select, Selecting(shard, decisions)), item.size))
    return out
