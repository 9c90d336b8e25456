"""Balance and routing in the loop: what the log says, what a resumed run keeps, what the end is free of."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import small
from polyclinic.errors import CheckpointError
from polyclinic.moe import attach as routed
from polyclinic.moe.checkpoint import load_model, read_families, write_families
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.runs import CHECKPOINTS
from polyclinic.train import loop, run
from polyclinic.train.report import read_log
from polyclinic.train.trainer import Balancing

STEPS = 15  # the bias grows for 7 steps and is gone from 12 on
SECTION = MoeTrainingSection(
    steps=STEPS, batch_packs=2, learning_rate=5e-3, save_every=4, log_every=3, threads=1, bias_balance=0.02
)


class Stopped(Exception):
    """The test's own interruption."""


class Listener(Silent):
    def __init__(self, stop_at: int) -> None:
        self._stop_at = stop_at

    def advance(self, done: int, total: int, note: str = "") -> None:
        if done == self._stop_at:
            raise Stopped


@pytest.fixture(scope="module")
def mixture(mixtures: dict[str, Path]) -> Path:
    return mixtures["qwen3"]


def train(mixture: Path, packed: Path, folder: Path, stop_at: int = -1, **changes: Any) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    run.train_mixture(SECTION.model_copy(update=changes), mixture, packed, folder, 0, Listener(stop_at))
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(tensor.equal(b[name]) for name, tensor in a.items())


def without_speed(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "machine"} for line in read_log(folder)]


def picks(model: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    layers = routed.sparse_layers(model).values()
    hooks = [x.mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[1])) for x in layers]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("routing", ["hybrid", "language", "topk"])
def test_the_log_tells_the_share_of_every_expert_by_layer_and_language(
    mixture: Path, packed: Path, tmp_path: Path, routing: str
) -> None:
    train(mixture, packed, tmp_path / "run", routing=routing, bias_balance=0.0)
    expert_of = read_families(mixture)["expert_of"]
    seen = set()
    for line in read_log(tmp_path / "run"):
        assert set(line["experts"]) == {"1", "2"}
        seen |= set(line["language_experts"])
        for shares in (line["experts"], *line["language_experts"].values()):
            assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in shares.values())
        for code, layers in line["language_experts"].items():
            least = {"hybrid": 0.5, "language": 1.0, "topk": 0.0}[routing]
            assert all(row[expert_of[code]] >= least for row in layers.values())
    assert seen == set(small.LANGUAGES)


def test_the_shares_of_a_step_are_those_of_its_real_tokens(
    mixture: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyclinic.train.trainer import StrictTrainer

    calls: list[tuple[list[torch.Tensor], torch.Tensor]] = []
    stock = StrictTrainer.compute_loss

    def watched(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen: list[torch.Tensor] = []
        layers = routed.sparse_layers(self.model).values()
        hooks = [x.mlp.experts.register_forward_pre_hook(lambda _, a: seen.append(a[1])) for x in layers]
        out = stock(self, model, inputs, *args, **kwargs)
        for hook in hooks:
            hook.remove()
        calls.append((seen, inputs["language_ids"].flatten()))
        return out

    monkeypatch.setattr(StrictTrainer, "compute_loss", watched)
    train(mixture, packed, tmp_path / "run", steps=12, log_every=1)
    codes = json.loads((packed / "packs.json").read_text("utf-8"))["languages"]
    assert any((languages == -1).any() for _, languages in calls)
    for line, (seen, languages) in zip(read_log(tmp_path / "run"), calls, strict=True):
        for layer, chosen in zip(("1", "2"), seen, strict=True):
            every = torch.bincount(chosen[languages >= 0].flatten(), minlength=7).double()
            assert line["experts"][layer] == pytest.approx((every / every.sum()).tolist(), abs=1e-4)
            for code, layers in line["language_experts"].items():
                own = torch.bincount(chosen[languages == codes.index(code)].flatten(), minlength=7).double()
                assert layers[layer] == pytest.approx((own / own.sum()).tolist(), abs=1e-4)


@pytest.mark.parametrize("step", [6, 9, 15])  # while the bias grows, while it fades, when it is gone
def test_a_run_stopped_under_a_bias_ends_with_the_same_weights_and_log(
    mixture: Path, packed: Path, tmp_path: Path, step: int
) -> None:
    whole = train(mixture, packed, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(mixture, packed, tmp_path / "cut", stop_at=step)
    assert len(list((tmp_path / "cut" / CHECKPOINTS).glob("*/bias.safetensors"))) == min(step // 4, 2)
    assert same(train(mixture, packed, tmp_path / "cut"), whole)
    assert without_speed(tmp_path / "cut") == without_speed(tmp_path / "whole")


def test_a_bias_changes_the_training_and_no_bias_leaves_no_file(mixture: Path, packed: Path, tmp_path: Path) -> None:
    assert not same(
        train(mixture, packed, tmp_path / "with"), train(mixture, packed, tmp_path / "without", bias_balance=0.0)
    )
    assert not list((tmp_path / "without" / CHECKPOINTS).glob("*/bias.safetensors"))


def test_the_stock_reload_picks_the_experts_of_the_model_as_it_was_trained(
    mixture: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.randint(3, 200, (4, 32), generator=torch.Generator().manual_seed(0))
    at_the_end: list[list[torch.Tensor]] = []
    biases: list[torch.Tensor | None] = []
    stock_detach, stock_apply = routed.detach, Balancing._apply

    def detach(model: Any) -> None:
        at_the_end.append(picks(model.train(), tokens))
        stock_detach(model)

    def applied(self: Balancing, step: int, steps: int) -> None:
        stock_apply(self, step, steps)
        biases.append(self._balance.bias_LE)

    monkeypatch.setattr(loop.routed, "detach", detach)
    monkeypatch.setattr(Balancing, "_apply", applied)
    train(mixture, packed, tmp_path / "run", routing="topk", bias_balance=0.05)
    used = [bias is not None and bool(bias.any()) for bias in biases]
    assert used == [0 < step < 12 for step in range(STEPS + 1)]
    reloaded = picks(load_model(tmp_path / "run").train(), tokens)
    assert all(map(torch.equal, at_the_end[0], reloaded))
    assert len(reloaded) == 2


@pytest.mark.parametrize("changes", [{"load_balance": 1.0}, {"z_loss": 0.1}])
def test_a_balance_loss_changes_the_training_and_resumes_as_well(
    mixture: Path, packed: Path, tmp_path: Path, changes: dict[str, float]
) -> None:
    changes = {"bias_balance": 0.0, **changes}
    whole = train(mixture, packed, tmp_path / "whole", **changes)
    with pytest.raises(Stopped):
        train(mixture, packed, tmp_path / "cut", stop_at=9, **changes)
    assert same(train(mixture, packed, tmp_path / "cut", **changes), whole)
    assert not same(train(mixture, packed, tmp_path / "plain", bias_balance=0.0), whole)


def test_a_balance_loss_keeps_the_loads_of_top_k_even(mixture: Path, packed: Path, tmp_path: Path) -> None:
    most = {}
    for strength in (0.0, 1.0):
        folder = tmp_path / str(strength)
        changes = {"routing": "topk", "steps": 40, "learning_rate": 1e-2, "bias_balance": 0.0}
        train(mixture, packed, folder, load_balance=strength, **changes)
        most[strength] = max(max(row) for row in read_log(folder)[-1]["experts"].values())
    assert most[1.0] < 0.25 < 0.4 < most[0.0]  # even is 1 / 7


def test_the_language_baseline_trains_experts_and_leaves_its_routers(
    mixture: Path, packed: Path, tmp_path: Path
) -> None:
    (path,) = mixture.glob("*.safetensors")
    before = load_file(path)
    after = train(mixture, packed, tmp_path / "run", routing="language", bias_balance=0.0)
    routers = [name for name in before if name.endswith("mlp.gate.weight")]
    assert len(routers) == 2
    assert all(after[name].equal(before[name]) for name in routers)
    experts = [name for name in before if ".experts." in name and "3.up_proj" in name]
    assert not any(after[name].equal(before[name]) for name in experts)
    assert read_families(tmp_path / "run")["trained_with"] == "language"


@pytest.mark.parametrize("routing", ["language", "hybrid"])
@pytest.mark.parametrize("stopped", [True, False])
def test_the_model_comes_back_as_it_went_in_however_training_ends(
    mixture: Path, packed: Path, tmp_path: Path, routing: str, stopped: bool
) -> None:
    model = load_model(mixture)
    layer = routed.sparse_layers(model)[2]
    layer.mlp.gate.weight.requires_grad_(False)
    settings = SECTION.model_copy(update={"routing": routing, "steps": 3, "bias_balance": 0.0})
    try:
        loop.fit(model, packed, settings, tmp_path, 0, Listener(3 if stopped else -1))
    except Stopped:
        assert stopped
    assert not routed.is_attached(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["model.layers.2.mlp.gate.weight"]


@pytest.mark.parametrize(
    ("facts", "routing", "refused"),
    [
        ({"made": {"router_init": "zero", "noise": 0.0, "reinit": 0.0}}, "topk", True),
        ({"made": {"router_init": "zero"}}, "topk", True),
        ({"made": {"router_init": "zero"}, "trained_with": "hybrid"}, "topk", False),
        ({"made": {"router_init": "zero", "noise": 0.1, "reinit": 0.0}}, "topk", False),
        ({"made": {"router_init": "zero", "noise": 0.0, "reinit": 0.5}}, "topk", False),
        ({"made": {"router_init": "random", "noise": 0.0, "reinit": 0.0}}, "topk", False),
        ({"made": {}}, "topk", False),
        ({"made": {"router_init": "zero", "noise": 0.0, "reinit": 0.0}}, "hybrid", False),
        ({"made": {"router_init": "zero", "noise": 0.0, "reinit": 0.0}}, "language", False),
    ],
)
def test_top_k_over_routers_of_zeros_and_equal_experts_is_refused(
    mixture: Path, packed: Path, tmp_path: Path, facts: dict[str, Any], routing: str, refused: bool
) -> None:
    folder = tmp_path / "mixture"
    shutil.copytree(mixture, folder)
    write_families(folder, read_families(mixture) | facts)
    changes = {"routing": routing, "steps": 1, "bias_balance": 0.0}
    if not refused:
        train(folder, packed, tmp_path / "out", **changes)
        return
    with pytest.raises(CheckpointError, match="routers of zeros") as caught:
        train(folder, packed, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("key", ["load_balance", "z_loss", "bias_balance"])
def test_balance_without_a_trained_router_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="routing language trains no router"):
        MoeTrainingSection(steps=1, routing="language", **{key: 0.1})
