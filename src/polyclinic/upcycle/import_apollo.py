"""Read a published-style Apollo-MoE folder into the native form; its own code is never run.

The published class (`model_type: upcycling-qwen2-moe`) holds Qwen2 with experts in some layers, under
the very names that Qwen2-MoE uses; the picks' weights are not normalised, and that is kept. Where
the experts are is read from the tensors: the published config class overwrites the list in its own
file (docs/upcycle.md).
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polyclinic.errors import CheckpointError, RecipeError
from polyclinic.families import Preset, fifty, load_preset
from polyclinic.moe.blueprint import BLUEPRINTS, Mixture, dense_config, moe_config
from polyclinic.moe.checkpoint import (
    COMPANIONS,
    CONFIG,
    check_vocabulary,
    read_config,
    tensor_files,
    tied_copies,
    write_families,
)
from polyclinic.moe.convert import Planned, headers, plan_beside, write_tensors
from polyclinic.moe.skeleton import Shape, expected_tensors, skeleton
from polyclinic.moe.verify import prove_blocks
from polyclinic.runs import write_json
from polyclinic.upcycle.build import family_facts

PUBLISHED = "upcycling-qwen2-moe"
PRESET_OF = {7: "apollo", 12: "apollo12"}  # number of experts -> the grouping that was published with it
# Code of its own is never run. The published class turns heads by rope_theta alone, and with sdpa or
# eager attention has no windows.
READ_PAST = ("auto_map", "rope_scaling", "use_sliding_window")
_EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.\d+\.gate_proj\.weight")


def import_apollo(source: Path, out: Path, families: str | None) -> dict[str, Any]:
    """Write the native form into an empty folder and return the facts.

    Raises CheckpointError for a folder of another kind or with tensors missing, left over or of
    another shape, RecipeError where no preset has its number of experts.
    """
    raw = read_config(source, own_code=True)
    if raw.get("model_type") != PUBLISHED:
        what = f"model_type is '{raw.get('model_type')}', not '{PUBLISHED}'"
        raise CheckpointError(source, what, "build from a dense parent with polyclinic upcycle build")
    files = tensor_files(source)
    dropped = tied_copies(source, files)
    files = {name: path for name, path in files.items() if name not in dropped}
    mixture = _mixture(raw, files, source)
    preset = _preset(families, mixture.num_experts)
    kept = {k: v for k, v in raw.items() if k not in READ_PAST}
    dense = dense_config({**kept, "model_type": "qwen2"}, source)
    config = moe_config(dense, BLUEPRINTS["qwen2"], mixture)
    planned = _plan(files, mixture, int(dense["hidden_size"]))
    _check(planned, expected_tensors(skeleton(config, source)), source)
    check_vocabulary(source, int(dense["vocab_size"]))
    write_tensors(planned, files, out, 0, {})
    write_json(out / CONFIG, config)
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    write_families(out, _facts(preset, mixture, raw))
    return {
        "sparse_layers": list(mixture.sparse_layers),
        "num_experts": mixture.num_experts,
        "top_k": mixture.top_k,
        "norm_topk_prob": mixture.normalise,
        "shared_expert": mixture.shared_expert != "none",
        "preset": preset.name,
        "dropped": dropped,
        **prove_blocks(out, 0),
        "notes": _notes(raw, mixture),
    }


def _mixture(raw: Mapping[str, Any], files: Iterable[str], where: Path) -> Mixture:
    sparse = sorted({int(m.group(1)) for m in map(_EXPERT.fullmatch, files) if m})
    numbers = [raw.get("num_experts"), raw.get("num_experts_per_tok")]
    if not sparse or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise CheckpointError(where, "holds no experts, or its config does not count them", "fetch it again")
    num_experts, top_k = int(numbers[0] or 0), int(numbers[1] or 0)
    if top_k > num_experts:
        raise CheckpointError(where, f"num_experts_per_tok {top_k} of {num_experts} experts", "fetch it again")
    shared = "copy" if raw.get("share_flag") else "none"
    return Mixture(tuple(sparse), num_experts, top_k, bool(raw.get("norm_topk_prob")), shared_expert=shared)  # type: ignore[arg-type]


def _preset(families: str | None, num_experts: int) -> Preset:
    name = families or PRESET_OF.get(num_experts)
    if name is None:
        what = f"no published grouping has {num_experts} experts"
        raise RecipeError("--families", what, "name a preset or families file with as many families")
    preset = load_preset(name)
    if preset.num_experts != num_experts:
        what = f"preset '{preset.name}' has {preset.num_experts} families for {num_experts} experts"
        raise RecipeError("--families", what, "name another preset or families file")
    return preset


def _plan(files: Mapping[str, Path], mixture: Mixture, hidden: int) -> list[Planned]:
    """Every tensor as it is, and the silent shared expert that Qwen2-MoE builds and the published class does not."""
    planned = [Planned(name, shape, dtype, name) for name, (shape, dtype) in headers(files).items()]
    if mixture.shared_expert != "none":
        return planned
    there = {p.name for p in planned}
    dtype = planned[0].dtype
    for index in mixture.sparse_layers:
        beside = plan_beside(f"model.layers.{index}.mlp", hidden, dtype, mixture, BLUEPRINTS["qwen2"])
        planned += [p for p in beside if p.name not in there and not p.name.endswith(".gate.weight")]
    return planned


def _check(planned: Iterable[Planned], expected: Mapping[str, Shape], where: Path) -> None:
    found = {p.name: p.shape for p in planned}
    for kind, names in (("missing", set(expected) - set(found)), ("unexpected", set(found) - set(expected))):
        if names:
            raise CheckpointError(where, f"{kind} keys: {', '.join(sorted(names)[:3])}", "fetch it again")
    for name, shape in found.items():
        if shape != expected[name]:
            what = f"{name} has shape {list(shape)}, its config says {list(expected[name])}"
            raise CheckpointError(where, what, "fetch it again")


def _facts(preset: Preset, mixture: Mixture, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `polyclinic.json` says: no parent to be compared with, and the routing it was trained with."""
    facts = family_facts(preset, fifty(), mixture)
    del facts["made"]
    forced = "language" if mixture.shared_expert != "none" and mixture.top_k == 1 else "hybrid"
    return {**facts, "imported_from": PUBLISHED, "trained_with": forced if raw.get("language_gate") else "topk"}


def _notes(raw: Mapping[str, Any], mixture: Mixture) -> list[str]:
    said = raw.get("mlp_only_layers")
    dense = [i for i in range(int(raw["num_hidden_layers"])) if i not in mixture.sparse_layers]
    out = []
    if said not in (None, dense):
        out.append(f"config.json lists dense layers {said}, the tensors say {dense}; the tensors count")
    asked = [key for key in READ_PAST if key != "auto_map" and raw.get(key)]
    return out + [f"config.json asks for {key}, which the published class computes without; left out" for key in asked]
