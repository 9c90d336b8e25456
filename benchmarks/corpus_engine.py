"""What the executor costs over a bare loop: the same steps on the same files, in turn, CPU seconds.

    python benchmarks/corpus_engine.py FOLDER [--rounds N] [--languages en,sw]

The bare loop reads each file, does the steps and writes what is left to Parquet, with no plan, digests,
manifests, marks, examples or renames. The executor does one phase (clean) with a plan; both alone in
this process. `all phases` is a whole build, with decisions, selection, card and questions.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from polyclinic.corpus.build import build
from polyclinic.corpus.clean import Cleaning, _batches, steps
from polyclinic.corpus.engine import executor, parts, phases
from polyclinic.corpus.engine.engines import Inline
from polyclinic.corpus.engine.inputs import plan, wanted_languages
from polyclinic.corpus.tables import Writer
from polyclinic.corpus_section import CorpusSection
from polyclinic.progress import Silent


def bare(section: CorpusSection, out: Path) -> None:
    wanted = wanted_languages(section)
    for item in plan(section, section.texts):
        todo = steps(Cleaning(item, section, wanted))
        with Writer(out / f"{item.name}.parquet") as writer:
            for batch in _batches(item):
                for _, step in todo:
                    batch = step(batch).batch
                writer.write(batch)


def executed(section: CorpusSection, out: Path) -> None:
    parts._pieces.cache_clear()
    tasks = phases.clean_tasks(section, plan(section, section.texts))
    executor.run(tasks, out / "clean", Inline(), lambda number, attempt: None)


def whole(section: CorpusSection, out: Path) -> None:
    parts._pieces.cache_clear()
    build(section, out, Silent())


def seconds(work: Callable[[CorpusSection, Path], None], section: CorpusSection) -> float:
    out = Path(tempfile.mkdtemp())
    clock = time.process_time()
    work(section, out)
    spent = time.process_time() - clock
    shutil.rmtree(out)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--pattern", default="*.jsonl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--languages", default=None)
    parser.add_argument("--check-language", default="report")
    arguments = parser.parse_args()
    languages = arguments.languages.split(",") if arguments.languages else None
    values = {"root": arguments.folder, "texts": [{"path": arguments.pattern}], "languages": languages}
    section = CorpusSection.model_validate({**values, "check_language": arguments.check_language})
    works = {"bare loop": bare, "executor": executed, "all phases": whole}
    bare(section, Path(tempfile.mkdtemp()))  # models are loaded, files are in memory
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.rounds):
        for name, work in works.items():
            found[name].append(seconds(work, section))
    least = min(found["bare loop"])
    usual = statistics.median(found["bare loop"])
    for name, times in found.items():
        middle, best = statistics.median(times), min(times)
        over = f"{100 * (middle / usual - 1):+6.1f} % {100 * (best / least - 1):+6.1f} %"
        print(f"{name:<12} median {middle:7.2f} s   least {best:7.2f} s   {over}")


if __name__ == "__main__":
    main()
