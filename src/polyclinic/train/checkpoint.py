"""Checkpoints of a running training: complete or absent, hashed, and loaded strictly.

The stock resume of transformers 5.23 drops every expert tensor of a mixture without an error (its
per-expert names do not match the fused parameters and it loads with strict=False; issue
huggingface/transformers#48805). Here weights are saved under the names the model holds them by and
loaded with strict=True; nothing is pickled; a folder counts only once its manifest is inside.
"""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyclinic.errors import CheckpointError, DiskError
from polyclinic.runs import damaged, fsync_folder, publish, read_json, seal, write_json

WEIGHTS, OPTIMIZER, RNG, STATE = "model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"
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
    """Write one checkpoint, publish it, then delete all but the newest `keep` and the one that BEST names.

    Raises DiskError where the disk is full; the checkpoints that are there stay as they are.
    """
    root.mkdir(parents=True, exist_ok=True)
    work = root / f".tmp-step-{step:08d}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        _write(work, model, optimizer, scheduler, trainer_state, bias_LE)
        seal(work, {"step": step})
    except (OSError, SafetensorError) as err:
        shutil.rmtree(work, ignore_errors=True)
        free = shutil.disk_usage(root).free
        what = f"the checkpoint of step {step} could not be written ({_cause(err)}), {free / 1e6:.0f} MB are free"
        raise DiskError(root, what, "free space and run again; earlier checkpoints are whole") from err
    publish(work, folder_of(root, step))
    _prune(root, keep)


def _cause(err: Exception) -> str:
    return err.strerror or type(err).__name__ if isinstance(err, OSError) else str(err).strip()[:100]


def _write(
    work: Path, model: nn.Module, optimizer: Any, scheduler: Any, trainer_state: str, bias_LE: Tensor | None
) -> None:
    weights, aliases = _unique(model.state_dict())
    save_file(weights, work / WEIGHTS)
    tensors, optimizer_facts = _flatten(optimizer.state_dict())
    save_file(tensors, work / OPTIMIZER)
    save_file({"torch": torch.get_rng_state()}, work / RNG)
    if bias_LE is not None:
        save_file({"bias": bias_LE}, work / BIAS)
    facts = {
        "aliases": aliases,
        "optimizer": optimizer_facts,
        "scheduler": scheduler.state_dict(),
        "python": _as_json(random.getstate()),
        "numpy": _numpy_state(),
    }
    write_json(work / STATE, facts)
    (work / "trainer_state.json").write_text(trainer_state, "utf-8")


def latest(root: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest undamaged checkpoint and the damaged ones that are newer."""
    bad: list[Path] = []
    for path in sorted(root.glob("step-*"), reverse=True):
        if damaged(path) is None:
            return path, bad
        bad.append(path)
    return None, bad


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into a model; every name on both sides must match."""
    weights = load_file(folder / WEIGHTS)
    weights |= {alias: weights[name] for alias, name in read_json(folder / STATE)["aliases"].items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as err:
        raise CheckpointError(folder, str(err).splitlines()[-1].strip()[:200], "was the recipe changed?") from err


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Restore optimiser and schedule."""
    facts = read_json(folder / STATE)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": facts["optimizer"]})
    scheduler.load_state_dict(facts["scheduler"])


def load_rng(folder: Path) -> None:
    """Restore the generators of torch, Python and NumPy."""
    facts = read_json(folder / STATE)
    torch.set_rng_state(load_file(folder / RNG)["torch"])
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
        where = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and where in first:
            aliases[name] = first[where]
        else:
            first[where] = name
    return {n: t.contiguous() for n, t in state.items() if n not in aliases}, aliases


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split an optimiser state into named tensors and the plain facts of its groups."""
    tensors = {
        f"{index}.{key}": torch.as_tensor(value).contiguous()
        for index, values in state["state"].items()
        for key, value in values.items()
    }
    return tensors, state["param_groups"]


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
