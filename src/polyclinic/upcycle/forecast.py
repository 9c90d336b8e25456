"""What an upcycle would give, from a config.json alone: no weights, nothing written."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from polyclinic.errors import CheckpointError
from polyclinic.moe.blueprint import moe_config, notes
from polyclinic.moe.checkpoint import CONFIG, fetch_config, read_config
from polyclinic.moe.convert import Planned, plan_tensors
from polyclinic.moe.skeleton import expected_tensors, skeleton
from polyclinic.moe.verify import equal_by_design
from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import Design, design, differs_by
from polyclinic.upcycle.plan import start

SHIPPED = "data/bases.json"
GIGA, MEGA, KILO = 1e9, 1e6, 1e3


def config_of(name: str) -> tuple[dict[str, Any], str]:
    """Return the config.json of a folder, of a known base by its figures, or of the hub; and which it was."""
    if Path(name).is_dir():
        return read_config(Path(name)), str(Path(name) / CONFIG)
    shipped = json.loads((files("polyclinic") / SHIPPED).read_text("utf-8"))["bases"]
    if name in shipped:
        return dict(shipped[name]), f"figures of {name} that come with the package"
    return read_config(fetch_config(name)), f"{CONFIG} of {name} on the hub"


def forecast(raw: Mapping[str, Any], where: object, section: UpcycleSection, seed: int = 0) -> dict[str, Any]:
    """Return parameters, bytes, layers and families of the mixture that would be built.

    Active parameters are those one token uses: all but the experts it is not sent to.
    """
    made = design(raw, where, section, seed)
    dtype = getattr(torch, str(made.config.get("dtype") or "float32"), torch.float32)
    dense = {name: (shape, dtype) for name, shape in expected_tensors(skeleton(raw, where)).items()}
    planned = plan_tensors(dense, made.config, made.blueprint, made.mixture)
    _check_agreement(planned, made, where)
    total = _count(planned)
    idle = made.mixture.num_experts - made.mixture.top_k
    experts = _count([p for p in planned if ".experts." in p.name]) // made.mixture.num_experts
    return {
        "dense_type": made.blueprint.dense_type,
        "moe_type": made.blueprint.moe_type,
        "dense_parameters": sum(torch.Size(shape).numel() for shape, _ in dense.values()),
        "total_parameters": total,
        "active_parameters": total - idle * experts,
        "bytes": sum(p.num_bytes for p in planned),
        "dtype": str(dtype).removeprefix("torch."),
        "num_layers": made.config["num_hidden_layers"],
        "sparse_layers": list(made.mixture.sparse_layers),
        "num_experts": made.mixture.num_experts,
        "top_k": made.mixture.top_k,
        "equal_by_design": equal_by_design(made.mixture),
        "differs_by": differs_by(made.mixture),
        "preset": made.preset.name,
        "families": [{"name": f.name, "languages": list(f.languages)} for f in made.preset.families],
        "notes": notes(made.config),
    }


def _count(planned: list[Planned]) -> int:
    return sum(torch.Size(p.shape).numel() for p in planned)


def _check_agreement(planned: list[Planned], made: Design, where: object) -> None:
    """Hold the plan against what the stock class of the mixture expects."""
    config = moe_config(made.config, made.blueprint, made.mixture)
    wrong = {p.name: p.shape for p in planned}.items() ^ expected_tensors(skeleton(config, where)).items()
    if wrong:
        raise CheckpointError(where, f"plan and stock class disagree on {min(wrong)[0]}", "report this")


def lines(facts: Mapping[str, Any], source: str) -> list[str]:
    """Return the forecast as a person reads it."""
    sparse, layers = facts["sparse_layers"], facts["num_layers"]
    out = [
        f"config    {source}",
        f"form      {facts['dense_type']} -> {facts['moe_type']}, {facts['dtype']}",
        f"total     {_short(facts['total_parameters'])} parameters ({facts['total_parameters']:,}), "
        f"{facts['bytes'] / GIGA:.2f} GB of weights",
        f"active    {_short(facts['active_parameters'])} parameters a token ({facts['active_parameters']:,}); "
        f"dense parent {_short(facts['dense_parameters'])}",
        f"layers    {layers}: {layers - len(sparse)} dense, {len(sparse)} sparse ({', '.join(map(str, sparse))})",
        f"experts   {facts['num_experts']} in each sparse layer, {facts['top_k']} for each token",
        f"start     {start(facts)}",
        f"families  {facts['preset']}",
    ]
    out += [f"  expert {i}  {f['name']}: {' '.join(f['languages'])}" for i, f in enumerate(facts["families"])]
    return out + [f"note      {note}" for note in facts["notes"]]


def _short(count: int) -> str:
    """Return a count of parameters as papers print it: 651M, 2.04B."""
    if count >= GIGA:
        return f"{count / GIGA:.2f}B"
    return f"{count / MEGA:.0f}M" if count >= MEGA else f"{count / KILO:.0f}K"
