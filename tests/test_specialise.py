"""A recipe of two stages walks to a report, goes on where it was cut, and redoes no more than it must."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic.families import load_preset
from polyclinic.journey import Summary, run
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.progress import Silent
from polyclinic.recipe import Recipe

EXPERTS = sorted({load_preset("balanced").expert_of(code) for code in small.LANGUAGES})
STAGE = [step for expert in EXPERTS for step in (f"packed-specialise-{expert}", f"specialise-{expert}")]
LOOP = {"steps": 2, "batch_packs": 2, "save_every": 1, "threads": 1, "learning_rate": 1e-2}


class Listener(Silent):
    """Keeps what is said and the stages; leaves at one of them."""

    def __init__(self, leave_at: str = "") -> None:
        self.said: list[str] = []
        self._leave_at = leave_at

    def stage(self, name: str, what: str) -> None:
        if name == self._leave_at:
            raise KeyboardInterrupt

    def say(self, message: str) -> None:
        self.said.append(message)


def recipe(**changes: Any) -> Recipe:
    return small.recipe(specialise=LOOP | changes)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, Listener]:
    out, listener = tmp_path_factory.mktemp("stages") / "run", Listener()
    return out, run(recipe(), out, listener), listener


def digests(folder: Path) -> dict[str, str]:
    found = [p for p in folder.rglob("*") if p.suffix in (".safetensors", ".parquet")]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_each_family_with_text_has_its_step_and_the_others_are_said(walk: tuple[Path, Summary, Listener]) -> None:
    folder, summary, listener = walk
    assert len(EXPERTS) == 4
    assert summary.did == [
        "corpus", "tokenizer", "packed", "base", "upcycle", "train", *STAGE, "specialise", "analyse", "evaluate",
    ]  # fmt: skip
    names = [family.name for family in load_preset("balanced").families]
    skipped = [line for line in listener.said if line.startswith("no text for")]
    assert skipped == [
        f"no text for {names[e]}: expert {e} stays as train left it" for e in range(7) if e not in EXPERTS
    ]
    assert read_families(folder / "specialise")["specialised"] == EXPERTS


def test_each_family_saw_text_of_its_own_languages_alone(walk: tuple[Path, Summary, Listener]) -> None:
    preset = load_preset("balanced")
    for expert in EXPERTS:
        languages = json.loads((walk[0] / f"packed-specialise-{expert}" / "packs.json").read_text("utf-8"))["languages"]
        assert languages == [code for code in small.LANGUAGES if preset.expert_of(code) == expert]


def test_rows_of_experts_with_text_moved_and_nothing_else(walk: tuple[Path, Summary, Listener]) -> None:
    before, after = (load_model(walk[0] / name).state_dict() for name in ("train", "specialise"))
    for name, tensor in after.items():
        if ".experts." in name:
            assert [e for e in range(7) if not tensor[e].equal(before[name][e])] == EXPERTS
        else:
            assert tensor.equal(before[name])


def test_what_is_analysed_and_evaluated_is_the_last_stage(walk: tuple[Path, Summary, Listener], tmp_path: Path) -> None:
    """The same base and first stage, walked without a second, give other figures."""
    shutil.copytree(walk[0], tmp_path / "run")
    assert run(small.recipe(), tmp_path / "run", Silent()).did == ["analyse", "evaluate"]
    scores = [json.loads((f / "evaluate" / "scores.json").read_text("utf-8")) for f in (walk[0], tmp_path / "run")]
    assert scores[0]["loss"]["base"] == scores[1]["loss"]["base"]
    assert scores[0]["loss"]["mixture"] != scores[1]["loss"]["mixture"]
    assert "Each family on its own" in walk[1].report.read_text("utf-8")
    assert "Each family on its own" not in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("left_at", [f"specialise-{EXPERTS[1]}", f"packed-specialise-{EXPERTS[3]}", "specialise"])
def test_a_walk_that_was_cut_in_the_second_stage_goes_on_there(
    walk: tuple[Path, Summary, Listener], tmp_path: Path, left_at: str
) -> None:
    shutil.copytree(walk[0], tmp_path / "run")
    steps = [*STAGE, "specialise", "analyse", "evaluate"]
    left = steps[steps.index(left_at) :]
    for step in left:
        shutil.rmtree(tmp_path / "run" / step)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path / "run", Listener(left_at))
    assert run(recipe(), tmp_path / "run", Silent()).did == left
    assert digests(tmp_path / "run") == digests(walk[0])


def test_a_change_of_the_second_stage_redoes_it_and_no_more(
    walk: tuple[Path, Summary, Listener], tmp_path: Path
) -> None:
    shutil.copytree(walk[0], tmp_path / "run")
    assert run(recipe(), tmp_path / "run", Silent()).did == []
    did = run(recipe(routing="language"), tmp_path / "run", Silent()).did
    assert did == [*(s for s in STAGE if not s.startswith("packed")), "specialise", "analyse", "evaluate"]
