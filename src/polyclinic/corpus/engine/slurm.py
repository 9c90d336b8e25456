"""The shards of a corpus as jobs of Slurm: what to submit, and what each job does.

An array cleans, one job decides, an array selects, and one job puts the corpus together. Each job finds its
shards in the written plan by its number, so nothing but the folder is shared, and a job that was
lost is submitted again.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyclinic.corpus.build import build
from polyclinic.corpus.engine import executor, parts, phases
from polyclinic.corpus.engine.engines import Inline
from polyclinic.corpus.engine.executor import Task
from polyclinic.corpus.engine.inputs import PLAN, Input, Plan, plan_all, read_plan, written
from polyclinic.corpus.engine.pace import Pace
from polyclinic.corpus.engine.phases import CLEAN, DECIDE, DECIDED, SELECT
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import DataError, PolyclinicError
from polyclinic.progress import Progress
from polyclinic.runs import MANIFEST, write_bytes, write_json

FINISH = "finish"
PHASES = (CLEAN, DECIDE, SELECT, FINISH)
FOLDER, SUBMIT = "slurm", "submit.sh"
MOST = 1000  # jobs of an array; Slurm's own default allows 1001
INDEX = '"$SLURM_ARRAY_TASK_ID"'


def prepare(section: CorpusSection, out: Path, shards: Path, command: Sequence[str]) -> Path:
    """Write the plan and the scripts below `out`; returns the script that submits them.

    `command` begins a process of `polyclinic corpus shard` on the recipe, without phase and index.
    """
    planned = plan_all(section)
    shards.mkdir(parents=True, exist_ok=True)
    index = phases.indexed(section, planned, shards)
    executor.sweep(shards / CLEAN, phases.clean_tasks(section, planned.texts, index, shards))
    write_json(shards / PLAN, written(section, planned))
    folder, jobs = out / FOLDER, min(len(planned.texts), MOST)
    folder.mkdir(exist_ok=True)
    for phase in PHASES:
        several = f" --index {INDEX} --of {jobs}" if phase in (CLEAN, SELECT) else ""
        write_bytes(folder / f"{phase}.sh", _script(phase, command, several).encode())
    write_bytes(folder / SUBMIT, _submit(folder.absolute(), jobs, section.workers).encode())
    return folder / SUBMIT


def _script(phase: str, command: Sequence[str], several: str) -> str:
    lines = ["#!/bin/sh", f"#SBATCH --job-name=corpus-{phase}", "#SBATCH --requeue", "set -eu"]
    lines += [f"cd {shlex.quote(str(Path.cwd()))}", f"exec {shlex.join(command)} --phase {phase}{several}"]
    return "\n".join(lines) + "\n"


def _submit(folder: Path, jobs: int, workers: int) -> str:
    """Return the script that hands all four to sbatch, each waiting for the one before."""
    lines = ["#!/bin/sh", "# Options for all jobs (partition, time, memory) are read from SBATCH_... variables."]
    lines += ["set -eu", f"cd {shlex.quote(str(folder))}"]
    for before, phase in zip((None, *PHASES), PHASES, strict=False):
        options = ["--parsable", f"--output={phase}-%j.log"]
        options += [f"--array=0-{jobs - 1}%{workers}"] if phase in (CLEAN, SELECT) else []
        options += ["--kill-on-invalid-dep=yes", f'--dependency="afterok:${before}"'] if before else []
        lines.append(f"{phase}=$(sbatch {' '.join(options)} {phase}.sh)")
    lines.append(f'echo "submitted; the corpus is built when job ${FINISH} is done"')
    return "\n".join(lines) + "\n"


def shard(section: CorpusSection, place: Path, phase: str, index: int, of: int, progress: Progress) -> None:
    """Do the shards of one job: those whose number is `index` modulo `of`.

    Raises PolyclinicError where the phase before is not done, DataError where the plan is not of
    this recipe or an input has changed since.
    """
    planned = read_plan(place / PLAN, section)
    share = planned._replace(texts=planned.texts[index::of])
    if phase == DECIDE:
        tasks = [_deciding(section, planned, place)]
    elif phase == CLEAN:
        tasks = phases.clean_tasks(section, share.texts, _index(section, planned, place), place)
        for item in share.texts:
            check(item)
    else:
        tasks = _selecting(section, share, place)
    (place / phase).mkdir(exist_ok=True)
    executor.take(tasks, place / phase, Inline(), Pace(progress, phase, [task.size for task in tasks]))


def _index(section: CorpusSection, planned: Plan, place: Path) -> phases.Index:
    tasks = phases.exam_tasks(section, planned)
    done = executor.gathered(tasks, place / phases.INDEX, "run polyclinic corpus build again")
    return phases.index_of(done, place)


def _deciding(section: CorpusSection, planned: Plan, place: Path) -> Task:
    index = _index(section, planned, place)
    cleaned = _cleaned(section, planned, place, index)
    return phases.decide_task(section, planned.texts, cleaned, place, index)


def _selecting(section: CorpusSection, planned: Plan, place: Path) -> list[Task]:
    """Return the tasks that select in some shards; that the decisions are of these settings is seen at the end."""
    cleaned = _cleaned(section, planned, place, _index(section, planned, place))
    if not (place / DECIDE / DECIDED / MANIFEST).is_file():
        raise PolyclinicError(place / DECIDE, "not done", f"submit the {DECIDE} job again")
    return phases.select_tasks(planned.texts, cleaned, place)


def _cleaned(section: CorpusSection, planned: Plan, place: Path, index: phases.Index) -> list[dict[str, Any]]:
    tasks = phases.clean_tasks(section, planned.texts, index, place)
    return executor.gathered(tasks, place / CLEAN, f"submit the {CLEAN} jobs again")


def check(item: Input) -> None:
    """Raise DataError where a file is no longer what it was when the plan was made."""
    if item.path is not None and not parts.unchanged(item.path, item.piece):
        raise DataError(item.path, "has changed since the plan was made", "run polyclinic corpus build again")


def finish(section: CorpusSection, place: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Put the corpus together from shards that are all done; returns the facts for its manifest."""
    planned = read_plan(place / PLAN, section)
    deciding = [_deciding(section, planned, place)]
    executor.gathered(deciding, place / DECIDE, f"submit the {DECIDE} job again")
    selecting = _selecting(section, planned, place)
    executor.gathered(selecting, place / SELECT, f"submit the {SELECT} jobs again")
    here = section.model_copy(update={"engine": "local", "workers": 1})
    return build(here, folder, progress, place, planned)
