"""The training steps of a journey: a base from scratch, and the mixture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Places(NamedTuple):
    """Where a training finds and leaves things; `source` holds the tokenizer, and a mixture's weights."""

    source: Path
    packs: Path
    folder: Path
    validation: Path | None = None


def train_base(
    section: ScratchSection,
    tokenizer: Path,
    packs: Path,
    pack_tokens: int,
    folder: Path,
    seed: int,
    progress: Progress,
    validation: Path | None = None,
) -> dict[str, Any]:
    """Train a small dense model from nothing and save it as a stock checkpoint."""
    places = Places(tokenizer, packs, folder, validation)
    distributed.tell({"section": section.model_dump(), "places": _as_text(places), "seed": seed, "length": pack_tokens})
    return _base(section, places, seed, pack_tokens, progress)


def _base(section: ScratchSection, places: Places, seed: int, pack_tokens: int, progress: Progress) -> dict[str, Any]:
    vocabulary = Tokenizer.from_file(str(places.source / "tokenizer.json"))
    model = new_model(section, vocabulary, pack_tokens, seed)
    facts = fit(model, places.packs, section, places.folder, seed, progress, validation=places.validation)
    return {**facts, **_save(model, places.source, places.folder)}


def train_mixture(
    section: MoeTrainingSection,
    checkpoint: Path,
    packs: Path,
    folder: Path,
    seed: int,
    progress: Progress,
    validation: Path | None = None,
) -> dict[str, Any]:
    """Train an upcycled checkpoint with its family experts and save it as a stock checkpoint.

    Raises CheckpointError where plain top-k is asked of routers that cannot tell tokens apart.
    """
    quiet()
    check_installed(section)
    families = read_families(checkpoint)
    for each in (packs, validation):
        if each is not None:
            _check_packs(each, checkpoint, families["expert_of"])
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
    names, places = [family["name"] for family in families["families"]], Places(checkpoint, packs, folder, validation)
    distributed.tell({"section": section.model_dump(), "places": _as_text(places), "seed": seed, "expert": expert})
    facts = _mixture(section, places, seed, progress, expert, names)
    write_families(folder, {**families, "trained_with": section.routing})
    return facts


def _mixture(
    section: MoeTrainingSection,
    places: Places,
    seed: int,
    progress: Progress,
    expert: int | None,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    model = load_model(places.source)
    validation = places.validation
    facts = fit(model, places.packs, section, places.folder, seed, progress, expert, names=names, validation=validation)
    return {**facts, **_save(model, places.source, places.folder)}


def follow() -> None:
    """Take part in every training that the first process leads, until it says that there is none left."""
    quiet()
    while (call := distributed.told()) is not None:
        source, packs, folder, validation = call["places"]
        places = Places(Path(source), Path(packs), Path(folder), validation and Path(validation))
        if "length" in call:
            _base(ScratchSection(**call["section"]), places, call["seed"], call["length"], Silent())
        else:
            _mixture(MoeTrainingSection(**call["section"]), places, call["seed"], Silent(), call["expert"])


def _as_text(places: Places) -> list[str | None]:
    return [None if path is None else str(path) for path in places]


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
