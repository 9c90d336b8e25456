"""Build a Post-MoE checkpoint out of a dense one and prove it."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.errors import RecipeError
from polyclinic.families import Preset
from polyclinic.moe.blueprint import Blueprint, Mixture, blueprint_for, dense_config, moe_config, notes
from polyclinic.moe.checkpoint import COMPANIONS, CONFIG, check_vocabulary, read_config, write_families
from polyclinic.moe.convert import headers, plan_tensors, write_tensors
from polyclinic.moe.skeleton import checked_files
from polyclinic.moe.verify import verify
from polyclinic.recipe import UpcycleSection
from polyclinic.runs import write_json
from polyclinic.upcycle.plan import experts_of, sparse_layers
from polyclinic.upcycle.router_init import centroids

Texts = Mapping[str, Sequence[str]]  # language -> texts


class Design(NamedTuple):
    """All that is decided before a tensor is read."""

    preset: Preset
    config: dict[str, Any]  # of the dense parent, resolved
    blueprint: Blueprint
    mixture: Mixture


def design(raw: Mapping[str, Any], where: object, section: UpcycleSection, seed: int) -> Design:
    """Decide what becomes of a dense config.json.

    Raises RecipeError for choices that contradict each other or the model, CheckpointError for a
    model that no native mixture holds.
    """
    preset = experts_of(section)
    config, blueprint = dense_config(raw, where), blueprint_for(raw, where)
    if section.shared_expert != "none" and not blueprint.always_shared:
        what = f"{blueprint.moe_type} has no shared expert"
        raise RecipeError("upcycle.shared_expert", what, "leave it out, or take a base that becomes qwen2_moe")
    mixture = Mixture(
        sparse_layers=sparse_layers(section, int(config["num_hidden_layers"]), seed),
        num_experts=preset.num_experts,
        top_k=section.top_k,
        normalise=section.norm_topk_prob,
        shared_expert=section.shared_expert,
        router_init=section.router_init,
        noise=section.noise,
        reinit=section.reinit,
        seed=seed,
    )
    return Design(preset, config, blueprint, mixture)


def build(
    dense: Path, out: Path, section: UpcycleSection, languages: Iterable[str], seed: int, texts: Texts | None = None
) -> dict[str, Any]:
    """Write the mixture into an empty folder, prove it against its parent, return the figures.

    `texts` are what the rows of a `centroid` router are measured on.
    """
    made = design(read_config(dense), dense, section, seed)
    files = checked_files(dense)
    check_vocabulary(dense, int(made.config["vocab_size"]))
    planned = plan_tensors(headers(files), made.config, made.blueprint, made.mixture)
    facts = family_facts(made.preset, languages, made.mixture)
    given = centroids(dense, made.mixture, made.preset, texts or {}) if section.router_init == "centroid" else {}
    write_tensors(planned, files, out, seed, given)
    write_json(out / CONFIG, moe_config(made.config, made.blueprint, made.mixture))
    for name in COMPANIONS:
        if (dense / name).is_file():
            shutil.copyfile(dense / name, out / name)
    write_families(out, facts)
    return {
        "sparse_layers": list(made.mixture.sparse_layers),
        "num_experts": made.preset.num_experts,
        "bytes": sum(p.num_bytes for p in planned),
        **verify(dense, out, seed),
        "differs_by": differs_by(made.mixture),
        "notes": notes(made.config),
    }


def differs_by(mixture: Mixture) -> list[str]:
    """Say which choices make a mixture differ from its parent at the start; none where it equals it by design."""
    choices = {
        f"noise of {mixture.noise:g} standard deviations on the experts": mixture.noise,
        f"{mixture.reinit:.0%} of the experts' inner units drawn again": mixture.reinit,
        "weights of the picks not normalised": not mixture.normalise,
        "a shared expert that begins as a copy": mixture.shared_expert == "copy",
    }
    return [what for what, chosen in choices.items() if chosen]


def family_facts(preset: Preset, languages: Iterable[str], mixture: Mixture) -> dict[str, Any]:
    """Return what `polyclinic.json` says: families, the expert of each language in use, how it was made."""
    made = {k: v for k, v in asdict(mixture).items() if k not in ("sparse_layers", "num_experts", "top_k")}
    return {
        "format": 1,
        "preset": preset.name,
        "families": [{"name": f.name, "languages": list(f.languages)} for f in preset.families],
        "expert_of": {code: preset.expert_of(code) for code in sorted(languages)},
        "sparse_layers": list(mixture.sparse_layers),
        "made": made,
    }
