"""LoRA: the adapters alone train, come back after a kill, and end merged in a stock checkpoint."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import small
from polyclinic import journey
from polyclinic.errors import MissingDependencyError
from polyclinic.moe.attach import is_attached
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.recipe import LoraSection, MoeTrainingSection
from polyclinic.runs import CHECKPOINTS, read_json
from polyclinic.train import adapters, run
from polyclinic.train.loop import fit
from polyclinic.train.packs import Packs, collate
from polyclinic.train.report import read_log
from train import crash

KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (1, 2) for name in ("gate_up_proj", "down_proj")]
ROUTERS = [f"model.layers.{i}.mlp.gate.weight" for i in (1, 2)]
QUERIES = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(3)]
LOOP: dict[str, Any] = {
    "steps": 4, "batch_packs": 2, "learning_rate": 2e-2, "schedule": "constant", "threads": 1, "save_every": 2,
    "log_every": 1,
}  # fmt: skip


def section(*targets: str, **changes: Any) -> MoeTrainingSection:
    lora = {"rank": 2, "alpha": 4.0, "targets": list(targets)} | changes.pop("lora", {})
    return MoeTrainingSection(**{**LOOP, "lora": lora, **changes})


@KINDS
@pytest.mark.parametrize(
    ("targets", "parts"),
    [
        (["experts"], EXPERTS),
        (["router"], ROUTERS),
        (["q_proj"], QUERIES),
        (["q_proj", "experts", "router"], [*QUERIES, *EXPERTS, *ROUTERS]),
        (["k_proj", "o_proj"], [q.replace("q_proj", other) for q in QUERIES for other in ("k_proj", "o_proj")]),
    ],
    ids=lambda value: "-".join(value) if len(str(value)) < 40 else "",
)
def test_the_targets_change_and_every_other_tensor_stays_bit_by_bit(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, kind: str, targets: list[str], parts: list[str]
) -> None:
    run.train_mixture(section(*targets), mixtures[kind], packed, tmp_path, 0, Silent())
    made, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, local_files_only=True)
    assert not any(info.values())
    before, after = load_model(mixtures[kind]).state_dict(), made.state_dict()
    assert list(after) == list(before)
    assert {name for name, tensor in after.items() if not tensor.equal(before[name])} == set(parts)


def factors(newest: dict[str, Tensor], name: str) -> list[Tensor]:
    """Return A and B of an adapter, by the name of the module it stands on."""
    return [newest[f"base_model.model.{name}.lora_{part}.default.weight"] for part in "AB"]


def test_what_is_merged_is_the_product_of_the_trained_factors(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    """LoRA's formula, W + alpha / rank * B A, with the factors of the last checkpoint."""
    run.train_mixture(section("q_proj", lora={"alpha": 6.0}), mixtures["qwen3"], packed, tmp_path, 0, Silent())
    newest = load_file(max((tmp_path / CHECKPOINTS).glob("step-*")) / "model-00000.safetensors")
    before, after = load_model(mixtures["qwen3"]).state_dict(), load_model(tmp_path).state_dict()
    for name in QUERIES:
        a_rank_in, b_out_rank = factors(newest, name.removesuffix(".weight"))
        assert a_rank_in.shape == (2, 32)
        expected = before[name] + 6.0 / 2 * b_out_rank @ a_rank_in
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)
        assert (after[name] - before[name]).abs().max() > 1e-2


@KINDS
def test_the_merged_model_computes_what_the_adapted_one_did(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5 of the largest logit, with experts, router and a linear module adapted."""
    batch, seen = collate([Packs(packed)[i] for i in range(3)]), []
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    model, merge = load_model(mixtures[kind]), PeftModel.__getattr__

    def watched(self: Any, name: str) -> Any:
        if name == "merge_and_unload" and not seen:
            with torch.no_grad():
                seen.append(self.eval()(**inputs).logits)
        return merge(self, name)

    # peft hands merge_and_unload on from the model inside, through __getattr__.
    monkeypatch.setattr(PeftModel, "__getattr__", watched)
    start = model.eval()(**inputs).logits.detach()
    fit(model, packed, section("q_proj", "experts", "router"), tmp_path, 0, Silent())
    with torch.no_grad():
        ours = model.eval()(**inputs).logits
    assert (ours - seen[0]).abs().max() <= 1e-5 * seen[0].abs().max()
    assert (ours - start).abs().max() > 0.1
    assert not is_attached(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_only_adapters_have_a_state_of_the_optimiser(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    run.train_mixture(section("experts"), mixtures["qwen3"], packed, tmp_path, 0, Silent())
    newest = max((tmp_path / CHECKPOINTS).glob("step-*"))
    moments = [t.shape for n, t in load_file(newest / "optimizer-00000.safetensors").items() if n.endswith("exp_avg")]
    weights = load_file(newest / "model-00000.safetensors")
    assert sorted(moments) == sorted(t.shape for n, t in weights.items() if ".lora_" in n)
    assert len(moments) == 2 * len(EXPERTS)
    assert {s for shape in moments for s in shape} >= {2 * 7}  # rank 2 for each of seven experts


def test_dropout_and_seed_decide_the_weights(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    made = []
    for number, (dropout, seed) in enumerate([(0.0, 0), (0.0, 0), (0.5, 0), (0.0, 1)]):
        (folder := tmp_path / str(number)).mkdir()
        asked = section("q_proj", lora={"dropout": dropout})
        run.train_mixture(asked, mixtures["qwen3"], packed, folder, seed, Silent())
        made.append((folder / "model.safetensors").read_bytes())
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_a_training_of_adapters_learns(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    asked = section("experts", "q_proj", "v_proj", "o_proj", steps=40, learning_rate=3e-2, lora={"rank": 8})
    run.train_mixture(asked, mixtures["qwen3"], packed, tmp_path, 0, Silent())
    log = read_log(tmp_path)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]


def test_under_gradient_checkpointing_the_adapters_train_alike(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    made = []
    for checkpointing in (False, True):
        (folder := tmp_path / str(checkpointing)).mkdir()
        asked = section("q_proj", "experts", gradient_checkpointing=checkpointing)
        run.train_mixture(asked, mixtures["qwen3"], packed, folder, 0, Silent())
        made.append(load_model(folder).state_dict())
    for name, tensor in made[0].items():
        torch.testing.assert_close(tensor, made[1][name], rtol=1e-4, atol=1e-5)


def test_a_training_of_adapters_that_died_ends_with_the_same_weights(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(crash.LOOP, "lora", {"rank": 2, "targets": ["experts", "q_proj"]})
    assert crash.child(lambda: crash.train(mixtures["qwen3"], packed, tmp_path / "whole")) == 0
    names = read_json(tmp_path / "whole" / "touches.json")
    renamed = [i for i, name in enumerate(names, start=1) if name == "rename"]
    crash.survives(mixtures["qwen3"], packed, tmp_path / "cut", renamed[1], tmp_path / "whole")


def test_a_training_that_fails_leaves_the_weights_and_classes_as_they_were(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    class Stopped(Silent):
        def advance(self, done: int, total: int, note: str = "") -> None:
            raise KeyError("stop")

    model = load_model(mixtures["qwen3"])
    before, classes = load_model(mixtures["qwen3"]).state_dict(), [type(m) for m in model.modules()]
    with pytest.raises(KeyError):
        fit(model, packed, section("experts", "router"), tmp_path, 0, Stopped())
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert [type(m) for m in model.modules()] == classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": "experts"}, "give one"),
        ({"trains": "experts", "family": "th"}, "give one"),
        ({"load_balance": 0.1}, "add target router"),
        ({"lora": {"targets": []}}, "at least 1 item"),
        ({"lora": {"targets": ["experts", "experts"]}}, "each once"),
        ({"lora": {"targets": ["exports"]}}, "'experts' or 'router'"),
        ({"lora": {"dropout": 0.1}}, "dropout reaches linear modules only, and targets name experts"),
        ({"lora": {"dropout": 1.0, "targets": ["q_proj"]}}, "less than 1"),
        ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ({"lora": {"targets": ["router"]}, "routing": "language"}, "which trains no router"),
    ],
)
def test_adapters_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section("experts", **changes)


def test_adapters_on_routers_may_be_balanced() -> None:
    assert section("router", load_balance=0.1).balances


def test_every_target_names_something_in_each_native_form(mixtures: dict[str, Path]) -> None:
    targets = LoraSection.model_json_schema()["properties"]["targets"]["items"]["enum"]
    for folder in mixtures.values():
        model = load_model(folder)
        names = {name for name, _ in model.named_parameters()}
        for target in targets:
            fused = adapters.FUSED.get(target, ())
            assert all(any(name.endswith(f".{part}") for name in names) for part in fused)
            assert fused or adapters.linears(model, [target])


# Without peft


def test_without_peft_a_run_ends_before_it_begins(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("polyclinic.train.choices.find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(MissingDependencyError, match=r"peft.*pip install 'polyclinic\[lora\]'") as caught:
        run.train_mixture(section("experts"), mixtures["qwen3"], packed, tmp_path, 0, Silent())
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())
    recipe = small.recipe(train={"steps": 1, "lora": {}})
    with pytest.raises(MissingDependencyError):
        journey.run(recipe, tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()
