"""Two stages: each family's expert is trained alone from the same mixture, and joining them has no order."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import small
from polyclinic.corpus.pack import pack as packing
from polyclinic.errors import CheckpointError
from polyclinic.families import load_preset
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection, SpecialiseSection
from polyclinic.runs import read_json, write_json
from polyclinic.train import run, stages

KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
BALANCED = load_preset("balanced")
LOOP: dict[str, Any] = {"steps": 3, "batch_packs": 2, "learning_rate": 1e-2, "threads": 1, "save_every": 5}
Train = Callable[[str, int, str], Path]


@pytest.fixture(scope="module")
def own_packs(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Packs of each family's own languages, by expert."""
    root, out = tmp_path_factory.mktemp("own"), {}
    tokenizer, specials = packing.load_tokenizer(vocabulary)
    options = packing.Packing(small.PACK_TOKENS, "all", seed=0)
    for expert in sorted({BALANCED.expert_of(code) for code in small.LANGUAGES}):
        chosen = [d for d in small.documents() if BALANCED.expert_of(d.language) == expert]
        (folder := root / str(expert)).mkdir()
        packing.pack(chosen, tokenizer, specials, BALANCED.expert_of, folder, options, Silent())
        out[expert] = folder
    return out


def asked(expert: int, routing: str) -> MoeTrainingSection:
    return SpecialiseSection(**LOOP, routing=routing).of(BALANCED.families[expert].name)  # type: ignore[arg-type]


@pytest.fixture
def apart(mixtures: dict[str, Path], own_packs: dict[int, Path], tmp_path: Path) -> Train:
    """Return a trainer of one expert from a small mixture."""

    def train(kind: str, expert: int, routing: str) -> Path:
        (folder := tmp_path / f"{kind}-{expert}-{routing}").mkdir()
        run.train_expert(asked(expert, routing), mixtures[kind], own_packs[expert], folder, 0, Silent())
        return folder

    return train


def weights(folder: Path) -> dict[str, Tensor]:
    return load_model(folder).state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(tensor.equal(other[name]) for name, tensor in one.items())


@KINDS
def test_joined_experts_hold_their_trained_rows_and_all_else_is_the_mixture_bit_by_bit(
    mixtures: dict[str, Path], apart: Train, own_packs: dict[int, Path], tmp_path: Path, kind: str
) -> None:
    parts = {expert: apart(kind, expert, "hybrid") for expert in list(own_packs)[:2]}
    (out := tmp_path / "joined").mkdir()
    stages.join(mixtures[kind], list(parts.values()), out)
    before, after = weights(mixtures[kind]), weights(out)
    rows = {expert: load_file(folder / "expert.safetensors") for expert, folder in parts.items()}
    for name, tensor in after.items():
        expected = before[name].clone()
        for expert, own in rows.items():
            if name in own:
                assert not own[name].equal(expected[expert])
                expected[expert] = own[name]
        assert tensor.equal(expected), name
    assert {len(own) for own in rows.values()} == {4}
    assert read_families(out)["specialised"] == sorted(parts)
    assert read_families(out)["trained_with"] == "hybrid"


@pytest.mark.parametrize("routing", ["hybrid", "language"])
def test_the_order_of_families_does_not_matter(
    mixtures: dict[str, Path], apart: Train, own_packs: dict[int, Path], tmp_path: Path, routing: str
) -> None:
    made = []
    for number, order in enumerate((list(own_packs), list(own_packs)[::-1])):
        parts = []
        for expert in order:
            shutil.rmtree(tmp_path / f"qwen3-{expert}-{routing}", ignore_errors=True)
            parts.append(apart("qwen3", expert, routing))
        (out := tmp_path / f"joined-{number}").mkdir()
        stages.join(mixtures["qwen3"], parts, out)
        made.append(weights(out))
    assert equal(*made)


@pytest.mark.parametrize(("routing", "same"), [("language", True), ("hybrid", False)])
def test_one_after_the_other_is_the_same_only_where_no_text_meets_another_familys_expert(
    mixtures: dict[str, Path], apart: Train, own_packs: dict[int, Path], tmp_path: Path, routing: str, same: bool
) -> None:
    """Why every expert starts from the same mixture: a chain of trainings depends on its order."""
    chosen = list(own_packs)[:2]
    chains = []
    for order in (chosen, chosen[::-1]):
        checkpoint = mixtures["qwen3"]
        for expert in order:
            (folder := tmp_path / f"chain-{order[0]}-{expert}").mkdir()
            run.train_mixture(asked(expert, routing), checkpoint, own_packs[expert], folder, 0, Silent())
            checkpoint = folder
        chains.append(weights(checkpoint))
    (out := tmp_path / "joined").mkdir()
    stages.join(mixtures["qwen3"], [apart("qwen3", expert, routing) for expert in chosen], out)
    assert equal(*chains) == same
    assert equal(chains[0], weights(out)) == same


@pytest.fixture
def part(mixtures: dict[str, Path], own_packs: dict[int, Path], apart: Train) -> Path:
    return apart("qwen3", next(iter(own_packs)), "hybrid")


def test_an_expert_given_twice_is_refused(mixtures: dict[str, Path], part: Path, tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="give each expert once"):
        stages.join(mixtures["qwen3"], [part, part], out)
    assert not list(out.iterdir())


def test_an_expert_of_another_mixture_is_refused(
    mixtures: dict[str, Path], part: Path, tmp_path: Path, vocabulary: Path
) -> None:
    (out := tmp_path / "out").mkdir()
    facts = read_json(part / "expert.json")
    write_json(part / "expert.json", facts | {"expert": 7})
    with pytest.raises(CheckpointError, match="of expert 7 has no place in this mixture"):
        stages.join(mixtures["qwen3"], [part], out)
    assert not list(out.iterdir())


def test_the_section_of_a_family_trains_its_expert_alone() -> None:
    section = SpecialiseSection(steps=3, learning_rate=0.5, routing="language", loss_on="answers")
    made = section.of("Italic")
    assert (made.trains, made.family, made.routing, made.loss_on) == ("experts", "Italic", "language", "answers")
    assert {k: v for k, v in made.model_dump().items() if k in section.model_dump()} == section.model_dump()
