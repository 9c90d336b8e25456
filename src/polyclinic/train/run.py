"""The training steps of a journey: a base from scratch, and the mixture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from polyclinic.corpus.pack import META, load_tokenizer, vocabulary_digest
from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model, read_config, read_families, write_families
from polyclinic.progress import Progress, Silent
from polyclinic.recipe import MoeTrainingSection, ScratchSection
from polyclinic.runs import read_json
from polyclinic.train import distributed
from polyclinic.train.base import new_model
from polyclinic.train.carry import save_with_companions
from polyclinic.train.choices import check_has_text, check_installed, check_routers_learn, chosen_expert
from polyclinic.train.loop import fit, quiet


def train_base(
    section: ScratchSection, tokenizer: Path, packs: Path, pack_tokens: int, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train a small dense model from nothing and save it as a stock checkpoint."""
    paths = [str(path) for path in (tokenizer, packs, folder)]
    distributed.tell({"section": section.model_dump(), "paths": paths, "seed": seed, "pack_tokens": pack_tokens})
    return _base(section, tokenizer, packs, folder, seed, pack_tokens, progress)


def _base(
    section: ScratchSection, tokenizer: Path, packs: Path, folder: Path, seed: int, pack_tokens: int, progress: Progress
) -> dict[str, Any]:
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    model = new_model(section, vocabulary, pack_tokens, seed)
    facts = fit(model, packs, section, folder, seed, progress)
    return {**facts, **_save(model, tokenizer, folder)}


def train_mixture(
    section: MoeTrainingSection, checkpoint: Path, packs: Path, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train an upcycled checkpoint with its family experts and save it as a stock checkpoint.

    Raises CheckpointError where plain top-k is asked of routers that cannot tell tokens apart.
    """
    quiet()
    check_installed(section)
    families = read_families(checkpoint)
    _check_packs(packs, checkpoint, families["expert_of"])
    made = families.get("made", {})
    alike = made.get("router_init") == "zero" and not made.get("noise") and not made.get("reinit")
    if alike and "trained_with" not in families and section.routing == "topk":
        what = "has routers of zeros and equal experts: top-k sends every token to the same ones for ever"
        raise CheckpointError(checkpoint, what, "train with routing hybrid, or build it with noise")
    languages = {family["name"]: family["languages"] for family in families["families"]}
    expert = chosen_expert(section, languages, families["expert_of"])
    check_has_text(section, expert, read_json(packs / META)["expert_of"].values())
    config = read_config(checkpoint)
    check_routers_learn(section, config["num_experts_per_tok"], config["norm_topk_prob"])
    paths = [str(path) for path in (checkpoint, packs, folder)]
    distributed.tell({"section": section.model_dump(), "paths": paths, "seed": seed, "expert": expert})
    facts = _mixture(section, checkpoint, packs, folder, seed, progress, expert)
    write_families(folder, {**families, "trained_with": section.routing})
    return facts


def _mixture(
    section: MoeTrainingSection,
    checkpoint: Path,
    packs: Path,
    folder: Path,
    seed: int,
    progress: Progress,
    expert: int | None,
) -> dict[str, Any]:
    model = load_model(checkpoint)
    facts = fit(model, packs, section, folder, seed, progress, expert)
    return {**facts, **_save(model, checkpoint, folder)}


def follow() -> None:
    """Take part in every training that the first process leads, until it says that there is none left."""
    quiet()
    while (call := distributed.told()) is not None:
        source, packs, folder = (Path(path) for path in call["paths"])
        if "pack_tokens" in call:
            scratch = ScratchSection(**call["section"])
            _base(scratch, source, packs, folder, call["seed"], call["pack_tokens"], Silent())
        else:
            _mixture(
                MoeTrainingSection(**call["section"]), source, packs, folder, call["seed"], Silent(), call["expert"]
            )


def _check_packs(packs: Path, checkpoint: Path, expert_of: Mapping[str, int]) -> None:
    """Raise CheckpointError for packs made with another vocabulary, or with families of other experts."""
    facts = read_json(packs / META)
    tokenizer, specials = load_tokenizer(checkpoint)
    told = facts.get("specials", specials._asdict())  # packs of earlier releases do not say
    if facts["vocabulary"] != vocabulary_digest(tokenizer) or told != specials._asdict():
        raise CheckpointError(checkpoint, f"its tokenizer is not the one that {packs} was packed with", "pack again")
    for code, expert in facts["expert_of"].items():
        if expert_of.get(code, expert) != expert:
            what = f"expert {expert_of[code]} serves '{code}', {packs} was packed for expert {expert}"
            raise CheckpointError(checkpoint, what, "pack again with the families of this checkpoint")


def _save(model: Any, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Save weights and what travels with them, and read the weights back strictly; the first process writes."""
    state, changed = distributed.gathered(model), None
    if distributed.leads():
        if state is not None:
            del model.config.distributed_config  # saving is not to gather again
        save_with_companions(model, tokenizer, folder, state)
        reloaded = load_model(folder).state_dict()
        for name, tensor in (state or model.state_dict()).items():
            if not tensor.cpu().equal(reloaded[name]):
                changed = CheckpointError(folder, f"{name} changed on its way to disk", "run again; is the disk sound?")
    distributed.agree(changed)
    return {"parameters": sum(p.numel() for p in model.parameters())}
