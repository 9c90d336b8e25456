"""A thousand single bits, one at a time, in whatever a training reads: each is found before the first step."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from polyclinic.cli import main
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.runs import CHECKPOINTS, damaged, seal
from polyclinic.train import checkpoint
from polyclinic.train.run import train_mixture

FLIPS = 1000


@pytest.fixture(scope="module")
def read(mixtures: dict[str, Path], packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sealed folders as steps of a run leave them: packs, an upcycled mixture, and a training's checkpoints."""
    root = tmp_path_factory.mktemp("sealed")
    for name, source in (("packs", packed), ("mixture", mixtures["qwen3"])):
        seal(Path(shutil.copytree(source, root / name)), {"step": name})
    (root / "run").mkdir()
    section = MoeTrainingSection(steps=2, batch_packs=1, save_every=1, threads=1, bias_balance=0.01)
    train_mixture(section, root / "mixture", root / "packs", root / "run", 0, Silent())
    return {"packs": root / "packs", "mixture": root / "mixture", "checkpoints": root / "run" / CHECKPOINTS}


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file round."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def test_every_one_of_a_thousand_flipped_bits_is_found(read: dict[str, Path]) -> None:
    """Half of them anywhere, by size; half in a file drawn first, so that small ones have their share."""
    newest = checkpoint.folder_of(read["checkpoints"], 2)
    older = checkpoint.folder_of(read["checkpoints"], 1)
    files = [p for folder in (read["packs"], read["mixture"], newest) for p in sorted(folder.rglob("*")) if p.is_file()]
    assert len(files) > 15
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    draw, missed = np.random.default_rng(7), []
    for number in range(FLIPS):
        weights = sizes / sizes.sum() if number % 2 else None
        path = files[draw.choice(len(files), p=weights)]
        bit = int(draw.integers(8 * path.stat().st_size))
        flip(path, bit)
        folder = next(f for f in (read["packs"], read["mixture"], newest) if path.is_relative_to(f))
        found = checkpoint.latest(folder.parent) == (older, [newest]) if folder == newest else damaged(folder)
        if not found:
            missed.append((path.name, bit))
        flip(path, bit)
    assert missed == []
    assert [damaged(folder) for folder in (read["packs"], read["mixture"], newest)] == [None] * 3


@pytest.mark.parametrize(("folder", "file"), [("packs", "packs-00000.arrow"), ("mixture", "config.json")])
def test_the_command_says_which_file_it_was_and_leaves_nothing(
    read: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, file: str
) -> None:
    places = {name: Path(shutil.copytree(read[name], tmp_path / name)) for name in ("packs", "mixture")}
    flip(places[folder] / file, 401)
    argv = ["train", "run", str(places["mixture"]), "--packs", str(places["packs"]), "--out", str(tmp_path / "out")]
    assert main([*argv, "--steps", "1"]) == 4
    said = capsys.readouterr().err
    assert said.startswith(f"error: {places[folder]}: {file} is not what its manifest says; ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
