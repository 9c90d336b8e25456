"""Hugging Face data sets as the Arrow files they consist of, saved in a folder or fetched from the hub.

A folder written by `save_to_disk` needs no other library. A hub id goes through `datasets`, which
keeps what it fetched in its cache; from there on a data set is like any other file: digested,
planned as shards, read by line.
"""

from pathlib import Path
from typing import Any

from polyclinic.corpus_section import Source
from polyclinic.errors import DataError, MissingDependencyError, PolyclinicError
from polyclinic.runs import read_json

STATE = "state.json"
SPLITS = "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Say whether a folder is a data set, or several splits of one, as `save_to_disk` writes them."""
    return any((folder / name).is_file() for name in (STATE, SPLITS))


def saved(folder: Path) -> list[Path]:
    """Return the Arrow files of a saved data set in their order; raises DataError where one is missing."""
    if (folder / SPLITS).is_file():
        names = sorted(_known(folder / SPLITS, "splits"))
        return [path for name in names for path in saved(_inside(folder, name))]
    paths = [_inside(folder, entry.get("filename")) for entry in _known(folder / STATE, "_data_files")]
    for path in paths:
        if not path.is_file():
            raise DataError(path, "is missing from the saved data set", "save it again")
    return paths


def _known(path: Path, key: str) -> list[Any]:
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get(key), list) or found.get("_indices_data_files"):
        raise DataError(path, "is of no data set that we can read", "save it again with save_to_disk")
    return list(found[key])


def _inside(folder: Path, name: object) -> Path:
    """Return a file of a folder; raises DataError for a name that leads out of it."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", "..", "."):
        raise DataError(folder, "names a file outside of it", "save it again with save_to_disk")
    return folder / name


def files(source: Source) -> list[tuple[Path, str]]:
    """Fetch a data set of a hub, unless it is in the cache; returns its Arrow files, each with a name.

    Raises MissingDependencyError without the package `datasets`, DataError where there is no such
    data set, configuration or split, or the hub cannot be reached.
    """
    wanted = f"{source.hub}/{source.hub_split}"
    found = _load(source, wanted)
    paths = [Path(entry["filename"]) for entry in getattr(found, "cache_files", [])]
    if not paths or len(found) == 0:
        raise DataError(wanted, "is not one split with records", "name a split with hub_split")
    return [(path, f"{wanted}/{index}") for index, path in enumerate(paths)]


def _load(source: Source, wanted: str) -> Any:
    try:
        import datasets
    except ImportError as err:
        try_ = "install polyclinic with the extra evaluate"
        raise MissingDependencyError(wanted, "needs the package datasets", try_) from err
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            source.hub, source.hub_config, split=source.hub_split, revision=source.hub_revision
        )
    except PolyclinicError:
        raise
    except Exception as err:  # the library raises a dozen kinds, of three other libraries, too
        what = f"cannot be read from the hub ({type(err).__name__})"
        raise DataError(wanted, what, "check the id, hub_config, hub_split and the network") from err
