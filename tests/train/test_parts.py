"""What trains is what was asked for: the rest stays bit by bit, and one expert trains as if it stood alone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from polyclinic.corpus.pack.pack import IGNORED
from polyclinic.errors import PolyclinicError, RecipeError
from polyclinic.moe import attach as routed
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection, UpcycleSection
from polyclinic.runs import CHECKPOINTS, read_json, write_json
from polyclinic.train import run
from polyclinic.train.loop import fit
from polyclinic.train.packs import Packs, PackSampler, collate
from polyclinic.train.parts import only
from polyclinic.train.report import read_log
from polyclinic.upcycle.build import build
from train import crash

KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
LOOP: dict[str, Any] = {
    "steps": 4, "batch_packs": 2, "accumulate": 2, "learning_rate": 5e-3, "schedule": "linear", "threads": 1,
    "weight_decay": 0.3, "log_every": 1, "save_every": 2,
}  # fmt: skip
EXPERT = "model.layers.{}.mlp.experts.{}"
TENSORS = [EXPERT.format(layer, name) for layer in (1, 2) for name in ("gate_up_proj", "down_proj")]
ROUTERS = [f"model.layers.{layer}.mlp.gate.weight" for layer in (1, 2)]
Before = dict[str, Tensor]


def section(**changes: Any) -> MoeTrainingSection:
    return MoeTrainingSection(**{**LOOP, **changes})


def state(model: Any) -> Before:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fitted(mixture: Path, packed: Path, folder: Path, expert: int | None = None, **changes: Any) -> tuple[Before, Any]:
    """Train a mixture; returns its weights before, and the model."""
    folder.mkdir(exist_ok=True)
    model = load_model(mixture)
    before = state(model)
    fit(model, packed, section(**changes), folder, 0, Silent(), expert)
    return before, model


def changed(before: Before, model: Any) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}


@KINDS
@pytest.mark.parametrize(
    ("trains", "parts"),
    [("experts", TENSORS), ("router", ROUTERS), ("sparse", [*TENSORS, *ROUTERS])],
)
def test_the_named_part_trains_and_all_else_stays_bit_by_bit(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, kind: str, trains: str, parts: list[str]
) -> None:
    before, model = fitted(mixtures[kind], packed, tmp_path, trains=trains)
    assert changed(before, model) == set(parts)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_shared_experts_belong_to_the_sparse_part_alone(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    (out := tmp_path / "shared").mkdir()
    build(mixtures["qwen2"].with_name("qwen2-dense"), out, UpcycleSection(shared_expert="zero"), ["en"], seed=0)
    before, model = fitted(out, packed, tmp_path / "sparse", trains="sparse")
    assert {name.split(".")[4] for name in changed(before, model)} >= {"shared_expert", "experts", "gate"}
    assert all(name.startswith(("model.layers.1.mlp.", "model.layers.2.mlp.")) for name in changed(before, model))
    for trains, parts in (("experts", TENSORS), ("router", ROUTERS)):
        before, model = fitted(out, packed, tmp_path / trains, trains=trains)
        assert changed(before, model) == set(parts)


def test_what_is_frozen_has_no_state_in_a_checkpoint(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    fitted(mixtures["qwen3"], packed, tmp_path, trains="router")
    newest = max((tmp_path / CHECKPOINTS).glob("step-*"))
    moments = {
        n: t.shape for n, t in load_file(newest / "optimizer-00000.safetensors").items() if n.endswith("exp_avg")
    }
    assert list(moments.values()) == [(7, 32), (7, 32)]


def test_routers_that_route_by_language_leaves_alone_stay_beside_their_experts(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    before, model = fitted(mixtures["qwen3"], packed, tmp_path, trains="sparse", routing="language")
    assert changed(before, model) == set(TENSORS)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_part_frozen_before_stays_so(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    model = load_model(mixtures["qwen3"])
    still = model.get_parameter(TENSORS[0]).requires_grad_(False)
    before = still.detach().clone()
    fit(model, packed, section(trains="experts"), tmp_path, 0, Silent())
    assert still.equal(before)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [TENSORS[0]]


# One expert


def alone(mixture: Path, packed: Path, expert: int, settings: MoeTrainingSection) -> tuple[Before, list[float]]:
    """Train one expert's rows as tensors of their own with a plain AdamW; returns them and the norms of each step."""
    model, packs = load_model(mixture).train(), Packs(packed)
    routed.attach(model)
    whole = {name: model.get_parameter(name).detach() for name in TENSORS}
    own = {name: tensor[expert].clone().requires_grad_() for name, tensor in whole.items()}
    optimizer = torch.optim.AdamW(
        own.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    steps, per_step = settings.steps or 0, settings.batch_packs * settings.accumulate
    order, norms = list(PackSampler(len(packs), steps * per_step, 0)), []
    for step in range(steps):
        batch = collate([packs[i] for i in order[step * per_step : (step + 1) * per_step]])
        parts = {n: torch.cat([t[:expert], own[n][None], t[expert + 1 :]]) for n, t in whole.items()}
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "family_ids")}
        logits = functional_call(model, parts, kwargs={**inputs, "use_cache": False}).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(own.values(), settings.max_gradient_norm).item())
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / steps)
        optimizer.step()
    return {name: tensor.detach() for name, tensor in own.items()}, norms


@KINDS
@pytest.mark.parametrize("clip", [1e-3, 100.0])
@pytest.mark.parametrize("expert", [0, 4])
def test_one_expert_trains_as_tensors_of_its_own_would_and_no_other_row_moves_a_bit(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, kind: str, clip: float, expert: int
) -> None:
    changes = {"trains": "experts", "family": str(expert), "max_gradient_norm": clip}
    before, model = fitted(mixtures[kind], packed, tmp_path, expert, **changes)
    expected, norms = alone(mixtures[kind], packed, expert, section(**changes))
    assert changed(before, model) == set(TENSORS)
    for name in TENSORS:
        after = model.get_parameter(name)
        others = [e for e in range(len(after)) if e != expert]
        assert after[others].equal(before[name][others])
        torch.testing.assert_close(after[expert], expected[name], rtol=1e-4, atol=1e-6)
        assert (expected[name] - before[name][expert]).abs().max() > 1e-3
    logged = [line["gradient_norm"] for line in read_log(tmp_path)]
    assert logged == pytest.approx(norms, rel=1e-4)
    assert all((norm > clip) == (clip < 1) for norm in norms)


def test_an_expert_that_gets_no_gradient_decays_as_adamw_decays(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    """Routing by language sends it no token; rates of a linear schedule are 1, 3/4, 1/2, 1/4 of the peak."""
    served = set(read_families(mixtures["qwen3"])["expert_of"].values())
    expert = next(e for e in range(7) if e not in served)
    changes = {"trains": "experts", "family": str(expert), "routing": "language"}
    before, model = fitted(mixtures["qwen3"], packed, tmp_path, expert, **changes)
    share = torch.tensor([1 - 5e-3 * 0.3 * rate for rate in (1, 0.75, 0.5, 0.25)], dtype=torch.float64).prod()
    for name in TENSORS:
        after = model.get_parameter(name)
        torch.testing.assert_close(after[expert].double(), before[name][expert].double() * share, rtol=1e-6, atol=0)


def test_the_family_may_be_called_by_name_language_or_number(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    facts = read_families(mixtures["qwen3"])
    expert = facts["expert_of"]["th"]
    made = []
    for called in (facts["families"][expert]["name"], "th", expert):
        (folder := tmp_path / str(len(made))).mkdir()
        run.train_mixture(
            section(trains="experts", family=called, steps=2), mixtures["qwen3"], packed, folder, 0, Silent()
        )
        made.append((folder / "model.safetensors").read_bytes())
    assert made[0] == made[1] == made[2]
    rows = load_model(tmp_path / "0").get_parameter(TENSORS[0])
    start = load_model(mixtures["qwen3"]).get_parameter(TENSORS[0])
    assert [e for e in range(7) if not rows[e].equal(start[e])] == [expert]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trains": "experts", "family": "sino-Tibetian"},
            "train.family: there is no family 'sino-Tibetian'; did you mean 'Sino-Tibetan'?",
        ),
        ({"trains": "experts", "family": 7}, "train.family: there is no family '7'; the families are 0 "),
    ],
)
def test_a_family_that_is_none_names_the_nearest(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        run.train_mixture(section(**changes), mixtures["qwen3"], packed, tmp_path, 0, Silent())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_family_without_text_of_its_own_is_refused_where_no_other_text_reaches_it(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    served = set(read_json(packed / "packs.json")["expert_of"].values())
    without = next(e for e in range(7) if e not in served)
    asked = section(trains="experts", family=without, routing="language")
    with pytest.raises(RecipeError, match="no text is of the languages of family"):
        run.train_mixture(asked, mixtures["qwen3"], packed, tmp_path, 0, Silent())


def test_routers_alone_beside_a_sole_normalised_pick_are_refused(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    """And the refusal is right: their gradient is nothing but rounding, which AdamW would blow up."""
    one = Path(shutil.copytree(mixtures["qwen3"], tmp_path / "one"))
    config = json.loads((one / "config.json").read_text("utf-8"))
    write_json(one / "config.json", config | {"num_experts_per_tok": 1})
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError, match="nothing would train"):
        run.train_mixture(section(trains="router"), one, packed, tmp_path / "out", 0, Silent())
    fitted(one, packed, tmp_path / "rounding", trains="router")
    assert all(line["gradient_norm"] < 1e-6 for line in read_log(tmp_path / "rounding"))
    write_json(one / "config.json", config | {"num_experts_per_tok": 1, "norm_topk_prob": False})
    for name, learning in (("two", mixtures["qwen3"]), ("unnormalised", one)):
        fitted(learning, packed, tmp_path / name, trains="router")
        assert all(line["gradient_norm"] > 1e-3 for line in read_log(tmp_path / name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "th"}, "add trains: experts"),
        ({"family": "th", "trains": "sparse"}, "add trains: experts"),
        ({"family": "th", "trains": "router"}, "add trains: experts"),
        ({"trains": "router", "routing": "language"}, "nothing would train"),
        ({"trains": "experts", "load_balance": 0.1}, "nothing to balance"),
        ({"trains": "experts", "z_loss": 0.1}, "nothing to balance"),
        ({"trains": "experts", "bias_balance": 0.1}, "nothing to balance"),
        ({"trains": "expert"}, "'all', 'sparse', 'experts' or 'router'"),
        ({"trains": "experts", "family": ""}, "at least 1 character"),
        ({"trains": "experts", "family": True}, "valid string"),
    ],
)
def test_what_trains_nothing_or_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(**changes)


# Deaths and processes


def test_a_training_of_one_expert_that_died_ends_with_the_same_weights(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead behind the publishing of its second checkpoint, and behind the one before the last."""
    monkeypatch.setattr(crash, "fit", lambda *arguments: fit(*arguments, expert=4))
    monkeypatch.setitem(crash.LOOP, "trains", "experts")
    monkeypatch.setitem(crash.LOOP, "family", "4")
    work: Callable[[], object] = lambda: crash.train(mixtures["qwen2"], packed, tmp_path / "whole")  # noqa: E731
    assert crash.child(work) == 0
    names = read_json(tmp_path / "whole" / "touches.json")
    renamed = [i for i, name in enumerate(names, start=1) if name == "rename"]
    crash.survives(mixtures["qwen2"], packed, tmp_path / "cut", renamed[1], tmp_path / "whole")
    after, start = load_file(tmp_path / "cut" / "end.safetensors"), load_model(mixtures["qwen2"])
    assert changed(after, start) == set(TENSORS)
    assert [e for e in range(7) if not after[TENSORS[0]][e].equal(start.get_parameter(TENSORS[0])[e])] == [4]


def _rows_of_a_process(rank: int, folder: Path) -> None:
    """Mask and decay what one of two processes would hold of a tensor of seven experts."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from polyclinic.train import parts

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)
    mesh, shard = init_device_mesh("cpu", (2,)), slice(0, 4) if rank == 0 else slice(4, 7)
    whole = torch.arange(7.0)[:, None].expand(7, 3) + 1

    def sharded(rows: Tensor) -> DTensor:
        return DTensor.from_local(rows.clone(), mesh, [Shard(0)], shape=(7, 3), stride=(3, 1), run_check=False)

    parameter = torch.nn.Parameter(sharded(whole[shard]))
    parameter.grad = sharded(whole[shard])
    for expert in range(7):
        one = parts.OneExpert(None, expert, 0.5)  # type: ignore[arg-type]
        one.parameters = lambda: [parameter]  # type: ignore[method-assign]
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        with torch.no_grad():
            parameter.grad.to_local().copy_(whole[shard])
            parameter.to_local().copy_(whole[shard])
        one.mask()
        one.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
        left = torch.zeros(7, 3)
        left[expert] = whole[expert]
        assert parameter.grad.to_local().equal(left[shard])
        left = whole.clone()
        left[expert] *= 0.75
        assert parameter.to_local().equal(left[shard])
    (folder / f"good-{rank}").touch()


@pytest.mark.parametrize("rank", [0, 1])
def test_rows_are_found_in_what_a_process_holds_of_a_sharded_tensor(rank: int, tmp_path: Path) -> None:
    assert crash.child(lambda: _rows_of_a_process(rank, tmp_path)) == 0
    assert (tmp_path / f"good-{rank}").exists()


def _one_step(model: Any, batch: dict[str, Tensor], settings: MoeTrainingSection, sharded: bool) -> float:
    """Train one expert for a step as the loop does; returns the norm of the gradients."""
    routed.attach(model.train())
    with only(model, settings, 4) as one_expert:
        if sharded:
            for layer in model.get_decoder().layers:
                fully_shard(layer)
            fully_shard(model)
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "family_ids")}
        logits = model(**inputs, use_cache=False).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()).backward()
        assert one_expert is not None
        one_expert.mask()
        trained = [p for p in model.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trained, 1e-2)
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
        one_expert.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
        optimizer.step()
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def _as_one_of_two(mixture: Path, batch: dict[str, Tensor], settings: MoeTrainingSection, folder: Path) -> None:
    """Train one expert for a step in two processes that shard the model; the first writes the whole of it."""
    other = os.fork()
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=0 if other else 1, world_size=2)
    model = load_model(mixture)
    norm = _one_step(model, batch, settings, sharded=True)
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    dist.barrier()
    if not other:
        os._exit(0)
    assert os.waitpid(other, 0)[1] == 0
    save_file({**{n: t.clone() for n, t in weights.items()}, "norm": torch.tensor(norm)}, folder / "end.safetensors")


@KINDS
def test_two_processes_that_shard_the_experts_train_the_same_one(
    mixtures: dict[str, Path], packed: Path, tmp_path: Path, kind: str
) -> None:
    """FSDP2 cuts the seven experts into four and three; both processes see the batch of the single one."""
    batch = collate([Packs(packed)[i] for i in range(2)])
    settings = section(trains="experts", family="4")
    assert crash.child(lambda: _as_one_of_two(mixtures[kind], batch, settings, tmp_path)) == 0
    alone_model = load_model(mixtures[kind])
    before, norm = state(alone_model), _one_step(alone_model, batch, settings, sharded=False)
    made = load_file(tmp_path / "end.safetensors")
    assert made.pop("norm").item() == pytest.approx(norm, rel=1e-4)
    assert norm > 1e-2
    for name, tensor in made.items():
        others = [e for e in range(7) if e != 4] if name in TENSORS else slice(None)
        assert tensor[others].equal(before[name][others]), name
        if name in TENSORS:
            assert not tensor[4].equal(before[name][4])
            torch.testing.assert_close(tensor[4], alone_model.get_parameter(name)[4], rtol=1e-3, atol=1e-5)


def test_errors_of_what_trains_are_of_the_recipe() -> None:
    assert issubclass(RecipeError, PolyclinicError)
    assert RecipeError.exit_code == 3
