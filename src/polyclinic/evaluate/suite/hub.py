"""Exams that are loaded when they are asked for: data sets of a hub, and files of public repositories.

Both go through `datasets.load_dataset`, which keeps what it fetched in its cache. No code of a set is
run: sets that consist of a script are read from the files beside it.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyclinic.errors import DataError, MissingDependencyError
from polyclinic.evaluate.backends.quiet import quiet_hub
from polyclinic.evaluate.suite.rows import Place, Record, to_record, wanted
from polyclinic.evaluate.suite.table import CONFIG, LANGUAGE, Exam


def records(exam: Exam, code: str, at: Path | None, left_out: Counter[str]) -> list[Record]:
    """Return an exam's records of all its splits in one language; counts what is left out.

    `at` is a folder with the same files, in place of the hub or repository. Raises DataError where
    something cannot be fetched or read, MissingDependencyError without the package `datasets`.
    """
    out = []
    for split in (exam.split, *exam.shots):
        for config in exam.configs or [""]:
            named = config.replace(LANGUAGE, code)
            label = "/".join(part for part in (named, split) if part)
            for number, row in enumerate(_rows(exam, named, split, at), 1):
                if not wanted(row, exam, code):
                    continue
                place = Place(f"{source(exam)}/{label}:{number}", f"{label}-{number}".replace("/", "-"), code, split)
                found = to_record(row, exam, place)
                if isinstance(found, str):
                    left_out[found] += 1
                else:
                    out.append(found)
    return out


def source(exam: Exam) -> str:
    """Return the id of the data set or repository."""
    return exam.hub or f"github:{exam.github}"


def _rows(exam: Exam, config: str, split: str, at: Path | None) -> Iterator[Any]:
    """Yield the raw records of one split."""
    where = "/".join(part for part in (source(exam), config, split) if part)
    try:
        import datasets
    except ImportError as err:
        raise MissingDependencyError(where, "needs the package datasets", "pip install 'polyclinic[evaluate]'") from err
    datasets.disable_progress_bars()
    try:
        base = folder(exam, at)
        if exam.archive:
            base = datasets.DownloadManager().download_and_extract(base + exam.archive) + "/"
        path, options = called(exam, config, split, base)
        with quiet_hub():
            found = datasets.load_dataset(path, split=split, **options)
    except Exception as err:  # the library raises a dozen kinds, of three other libraries, too
        first = (str(err).splitlines() or [""])[0][:120]
        what = f"cannot be loaded ({type(err).__name__}: {first})"
        raise DataError(where, what, "check the network, or run exams that are here: all-local") from err
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Image):  # whether there is one is all that is asked
            found = found.cast_column(name, datasets.Image(decode=False))
    yield from found


def folder(exam: Exam, at: Path | None) -> str:
    """Return where a set's files lie, with the slash behind it."""
    if at:
        return f"{at}/"
    if exam.hub:
        return f"hf://datasets/{exam.hub}@{exam.revision}/"
    return f"https://raw.githubusercontent.com/{exam.github}/{exam.revision}/"


def called(exam: Exam, config: str, split: str, base: str) -> tuple[str, dict[str, Any]]:
    """Return what `load_dataset` is called with: a format and files below `base`, or a set and its configuration."""
    if exam.files:
        paths = [base + name.replace(CONFIG, config) for name in exam.files[split]]
        return exam.format, {"data_files": {split: paths}}
    options: dict[str, Any] = {"name": config or None}
    if base == folder(exam, None):
        return exam.hub, {**options, "revision": exam.revision}
    return base, options
