"""Checkpoints of a running training: complete or absent, hashed, and loaded strictly.

The stock resume of transformers 5.23 drops every expert tensor of a mixture without an error (its
per-expert names do not match the fused parameters and it loads with strict=False; issue
huggingface/transformers#48805). Here weights are saved under the names the model holds them by,
names must match both ways, and every tensor is compared with its file once it is in place. Nothing
is pickled; a folder counts only once its manifest is inside. Every process writes what it holds.
"""

import os
import random
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyclinic.errors import CheckpointError, DiskError
from polyclinic.runs import damaged, digest, fsync_folder, publish, read_json, seal, write_bytes, write_json
from polyclinic.train import distributed, shards
from polyclinic.train.shards import Shards, held

STATE, LATEST = "state.json", "latest"
BEST = "best.json"  # beside the checkpoints: the step with the lowest validation loss
BIAS = "bias.safetensors"  # of bias balancing, where there is one


def folder_of(root: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return root / f"step-{step:08d}"


def save(
    root: Path,
    step: int,
    model: nn.Module,
    optimizer: Any,
    scheduler: Any,
    trainer_state: str,
    bias_LE: Tensor | None = None,
    *,
    keep: int = 2,
) -> None:
    """Write one checkpoint, publish it, point `latest` to it, then delete older ones.

    The newest `keep` stay, and the one that BEST names.

    Raises DiskError where the disk of any process is full; the checkpoints that are there stay.
    """
    work = root / f".tmp-step-{step:08d}"

    def prepare() -> None:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()

    def write() -> None:
        _write_held(work, model, optimizer)
        if distributed.leads():
            _write_common(work, model, optimizer, scheduler, trainer_state, bias_LE)

    def finish() -> None:
        seal(work, {"step": step})
        publish(work, folder_of(root, step))
        write_bytes(root / LATEST, f"{folder_of(root, step).name}\n".encode())
        _prune(root, keep)

    for act, everyone in ((prepare, False), (write, True), (finish, False)):
        distributed.agree(_attempt(act, root, work, step) if everyone or distributed.leads() else None)


def _attempt(act: Callable[[], None], root: Path, work: Path, step: int) -> DiskError | None:
    """Do a part of a save; returns what the disk refused."""
    try:
        act()
    except (OSError, SafetensorError) as err:
        shutil.rmtree(work, ignore_errors=True)
        free = shutil.disk_usage(root if root.is_dir() else root.parent).free
        what = f"the checkpoint of step {step} could not be written ({_cause(err)}), {free / 1e6:.0f} MB are free"
        refused = DiskError(root, what, "free space and run again; earlier checkpoints are whole")
        refused.__cause__ = err
        return refused
    return None


def _cause(err: Exception) -> str:
    return err.strerror or type(err).__name__ if isinstance(err, OSError) else str(err).strip()[:100]


def _file(folder: Path, kind: str, rank: int) -> Path:
    return folder / f"{kind}-{rank:05d}.safetensors"


def _write_held(work: Path, model: nn.Module, optimizer: Any) -> None:
    """Write what only this process holds: its rows of weights and optimiser, its generators."""
    rank, leads = distributed.rank(), distributed.leads()
    weights, _ = _unique(model.state_dict())
    shards.write(_file(work, "model", rank), weights, leads)
    shards.write(_file(work, "optimizer", rank), _optimizer_tensors(model, optimizer), leads)
    save_file(_generators(), _file(work, "generators", rank))
    for kind in ("model", "optimizer", "generators"):  # the leader may see them on another machine
        with _file(work, kind, rank).open("rb") as file:
            os.fsync(file.fileno())


def _write_common(
    work: Path, model: nn.Module, optimizer: Any, scheduler: Any, trainer_state: str, bias_LE: Tensor | None
) -> None:
    """Write what all processes share."""
    if bias_LE is not None:
        save_file({"bias": bias_LE}, work / BIAS)
    facts = {
        "aliases": _unique(model.state_dict())[1],
        "groups": _group_facts(model, optimizer),
        "scheduler": scheduler.state_dict(),
        "python": _as_json(random.getstate()),
        "numpy": _numpy_state(),
    }
    write_json(work / STATE, facts)
    (work / "trainer_state.json").write_text(trainer_state, "utf-8")


def tidy(root: Path) -> None:
    """Take away what a killed save left half done."""
    for path in root.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def latest(root: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest undamaged checkpoint and the damaged ones that are newer."""
    bad: list[Path] = []
    for path in sorted(root.glob("step-*"), reverse=True):
        if damaged(path) is None:
            return path, bad
        bad.append(path)
    return None, bad


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into a model; every name on both sides must match, and every value arrive.

    Raises CheckpointError naming the tensor where one does not.
    """
    stored = Shards(sorted(folder.glob("model-*.safetensors")))
    aliases: dict[str, str] = read_json(folder / STATE)["aliases"]
    state: dict[str, Tensor] = model.state_dict()
    _check_names(folder, stored.names() | aliases.keys(), state.keys())
    source = {name: aliases.get(name, name) for name in state}
    with torch.no_grad():
        for name, tensor in state.items():
            held(tensor)[0].copy_(stored.read(source[name], tensor))
    _check_arrived(folder, stored, source, model.state_dict())


def _check_names(folder: Path, stored: Collection[str], wanted: Collection[str]) -> None:
    for names, what in ((set(wanted) - set(stored), "is not in it"), (set(stored) - set(wanted), "is not the model's")):
        if names:
            raise CheckpointError(folder, f"{min(names)} {what} ({len(names)} such)", "was the recipe changed?")


def _check_arrived(folder: Path, stored: Shards, source: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Compare every tensor, bit for bit, with what its file holds."""
    for name, tensor in state.items():
        if not held(tensor)[0].cpu().equal(stored.read(source.get(name, name), tensor)):
            raise CheckpointError(folder, f"{name} did not arrive as it was stored", "report this")


def load_optimizer(folder: Path, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """Restore optimiser and schedule; raises CheckpointError unless it trains the same tensors."""
    facts = read_json(folder / STATE)
    stored, wanted = facts["groups"], _group_facts(model, optimizer)
    if [group["params"] for group in stored] != [group["params"] for group in wanted]:
        raise CheckpointError(folder, "its optimiser trains other tensors", "was the recipe changed?")
    files = Shards(sorted(folder.glob("optimizer-*.safetensors")))
    parameters = dict(model.named_parameters())
    indices = {name: i for i, name in enumerate(name for group in stored for name in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for key in sorted(files.names()):
        name, _, kind = key.rpartition(".")
        value = torch.zeros(()) if kind == "step" else torch.zeros_like(parameters[name])
        held(value)[0].copy_(files.read(key, value))
        state.setdefault(indices[name], {})[kind] = value
    groups = [{**g, "params": [indices[name] for name in g["params"]]} for g in stored]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    restored = _optimizer_tensors(model, optimizer)
    _check_names(folder, files.names(), restored)
    _check_arrived(folder, files, {}, restored)
    scheduler.load_state_dict(facts["scheduler"])


def load_generators(folder: Path, seed: int) -> None:
    """Restore the generators of torch, Python and NumPy; a process that is new here begins its own."""
    facts, path = read_json(folder / STATE), _file(folder, "generators", distributed.rank())
    if path.is_file():
        states = load_file(path)
        torch.set_rng_state(states["torch"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    else:
        torch.manual_seed(int(digest([seed, folder.name, distributed.rank()])[:8], 16))
    version, numbers, gauss = facts["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = facts["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


def load_bias(folder: Path) -> Tensor | None:
    """Return the bias (sparse layers, experts) that balances the experts; None where there is none."""
    return load_file(folder / BIAS)["bias"] if (folder / BIAS).is_file() else None


def _unique(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into tensors stored once and names that are another name's tensor."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    aliases = {}
    for name, tensor in state.items():
        part = held(tensor)[0]
        where = (part.data_ptr(), tuple(tensor.shape))
        if part.numel() and where in first:
            aliases[name] = first[where]
        else:
            first[where] = name
    return {n: t for n, t in state.items() if n not in aliases}, aliases


def _names(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _optimizer_tensors(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """Return the optimiser's tensors as `parameter.kind`."""
    names, state = _names(model), optimizer.state
    trained = [p for group in optimizer.param_groups for p in group["params"] if p in state]
    return {f"{names[id(p)]}.{kind}": torch.as_tensor(value) for p in trained for kind, value in state[p].items()}


def _group_facts(model: nn.Module, optimizer: Any) -> list[dict[str, Any]]:
    """Return the optimiser's groups with parameters by name."""
    names = _names(model)
    return [{**group, "params": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups]


def _generators() -> dict[str, Tensor]:
    states = {"torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _numpy_state() -> list[Any]:
    name, keys, *rest = np.random.get_state()
    return [str(name), [int(k) for k in keys], *rest]


def _as_json(value: Any) -> Any:
    return [_as_json(v) for v in value] if isinstance(value, tuple) else value


def _prune(root: Path, keep: int) -> None:
    best = folder_of(root, read_json(root / BEST)["step"]) if (root / BEST).is_file() else None
    for path in sorted(root.glob("step-*"))[:-keep]:
        if path != best:
            shutil.rmtree(path)
    fsync_folder(root)
