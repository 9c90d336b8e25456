"""Build a Post-MoE checkpoint out of a dense one and prove it."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polyclinic.families import Preset
from polyclinic.moe.blueprint import blueprint_for, moe_config
from polyclinic.moe.checkpoint import COMPANIONS, CONFIG, read_config, write_families
from polyclinic.moe.convert import Mixture, plan_tensors, write_tensors
from polyclinic.moe.verify import verify
from polyclinic.recipe import UpcycleSection
from polyclinic.runs import write_json
from polyclinic.upcycle.plan import experts_of, sparse_layers


def build(dense: Path, out: Path, section: UpcycleSection, languages: Iterable[str], seed: int) -> dict[str, Any]:
    """Write the mixture into an empty folder, prove it equal to its parent, return the figures."""
    preset = experts_of(section)
    config = read_config(dense)
    blueprint = blueprint_for(config, dense)
    sparse = sparse_layers(int(config["num_hidden_layers"]), section.last_layers)
    mixture = Mixture(sparse, preset.num_experts, section.noise, blueprint.empty_shared_expert, seed)
    planned = plan_tensors(dense, config, mixture)
    write_tensors(planned, dense, out, seed)
    write_json(out / CONFIG, moe_config(config, blueprint, preset.num_experts, section.top_k, sparse))
    for name in COMPANIONS:
        if (dense / name).is_file():
            shutil.copyfile(dense / name, out / name)
    write_families(out, family_facts(preset, languages, sparse))
    proof = {} if section.noise else verify(dense, out, seed)
    expert_bytes = sum(p.num_bytes for p in planned)
    return {"sparse_layers": list(sparse), "num_experts": preset.num_experts, "bytes": expert_bytes, **proof}


def family_facts(preset: Preset, languages: Iterable[str], sparse: tuple[int, ...]) -> dict[str, Any]:
    """Return what `polyclinic.json` says: the families, and the expert of each language in use."""
    return {
        "format": 1,
        "preset": preset.name,
        "families": [{"name": f.name, "languages": list(f.languages)} for f in preset.families],
        "expert_of": {code: preset.expert_of(code) for code in sorted(languages)},
        "sparse_layers": list(sparse),
    }
