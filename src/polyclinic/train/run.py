"""The training steps of a journey: a base from scratch, and the mixture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from polyclinic.corpus.pack import META, load_tokenizer, vocabulary_digest
from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model, read_families, write_families
from polyclinic.progress import Progress
from polyclinic.recipe import MoeTrainingSection, ScratchSection, TrainingSection
from polyclinic.runs import read_json
from polyclinic.train.base import new_model
from polyclinic.train.choices import check_has_text, check_installed, check_routers_learn, chosen_expert
from polyclinic.train.loop import fit, quiet


def train_base(
    section: ScratchSection, tokenizer: Path, packs: Path, pack_tokens: int, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train a small dense model from nothing and save it as a stock checkpoint."""
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    model = new_model(section, vocabulary, pack_tokens, seed)
    facts = fit(model, packs, section, folder, seed, progress)
    return {**facts, **save_stock(model, tokenizer, folder)}


def train_dense(
    section: MoeTrainingSection, checkpoint: Path, packs: Path, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train the dense parent on the packs and by the loop of a mixture, for comparison; routing has no say."""
    quiet()
    _check_packs(packs, checkpoint, {})
    model = load_model(checkpoint)
    loop = TrainingSection(**section.model_dump(include=set(TrainingSection.model_fields)))
    return {**fit(model, packs, loop, folder, seed, progress), **save_stock(model, checkpoint, folder)}


def train_mixture(
    section: MoeTrainingSection, checkpoint: Path, packs: Path, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train an upcycled checkpoint with its family experts and save it as a stock checkpoint.

    Raises CheckpointError where plain top-k is asked of routers that cannot tell tokens apart.
    """
    model, facts, _ = fit_mixture(section, checkpoint, packs, folder, seed, progress)
    facts |= save_stock(model, checkpoint, folder)
    write_families(folder, {**read_families(checkpoint), "trained_with": section.routing})
    return facts


def fit_mixture(
    section: MoeTrainingSection, checkpoint: Path, packs: Path, folder: Path, seed: int, progress: Progress
) -> tuple[Any, dict[str, Any], int | None]:
    """Train an upcycled checkpoint in memory; returns model, facts, and the number of the one expert that trained."""
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
    model = load_model(checkpoint)
    check_routers_learn(section, model.config.num_experts_per_tok, model.config.norm_topk_prob)
    return model, fit(model, packs, section, folder, seed, progress, expert), expert


def _check_packs(packs: Path, checkpoint: Path, expert_of: Mapping[str, int]) -> None:
    """Raise CheckpointError for packs made with another vocabulary, or with families of other experts."""
    facts = read_json(packs / META)
    tokenizer, _ = load_tokenizer(checkpoint)
    if facts["vocabulary"] != vocabulary_digest(tokenizer):
        raise CheckpointError(checkpoint, f"its tokenizer is not the one that {packs} was packed with", "pack again")
    for code, expert in facts["expert_of"].items():
        if expert_of.get(code, expert) != expert:
            what = f"expert {expert_of[code]} serves '{code}', {packs} was packed for expert {expert}"
            raise CheckpointError(checkpoint, what, "pack again with the families of this checkpoint")


def save_stock(model: Any, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Save weights and tokenizer, and read the weights back strictly."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(folder)
    reloaded = load_model(folder).state_dict()
    for name, tensor in model.state_dict().items():
        if not tensor.equal(reloaded[name]):
            raise CheckpointError(folder, f"{name} changed on its way to disk", "run again; is the disk sound?")
    return {"parameters": sum(p.numel() for p in model.parameters())}
