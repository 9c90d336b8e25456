"""The training steps of a journey: a base from scratch, a dense parent, the mixture, one of its experts.

Each is one act of all processes that torchrun started: the first checks, tells the others, and
does what they do.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from polyclinic.corpus.pack.pack import META, load_tokenizer, vocabulary_digest
from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model, read_config, read_families, write_families
from polyclinic.progress import Progress, Silent
from polyclinic.recipe import MoeTrainingSection, ScratchSection, TrainingSection
from polyclinic.runs import read_json
from polyclinic.train import distributed
from polyclinic.train.base import new_model
from polyclinic.train.choices import check_has_text, check_installed, check_routers_learn, chosen_expert
from polyclinic.train.loop import fit, quiet
from polyclinic.train.saving import save_expert, save_stock


class Places(NamedTuple):
    """Where a training finds and leaves things; `source` holds the tokenizer, and weights to start from."""

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
    return _together("base", section, places, seed, progress, length=pack_tokens)


def train_dense(
    section: MoeTrainingSection,
    checkpoint: Path,
    packs: Path,
    folder: Path,
    seed: int,
    progress: Progress,
    validation: Path | None = None,
) -> dict[str, Any]:
    """Train the dense parent on the packs and by the loop of a mixture, for comparison; routing has no say."""
    quiet()
    _check_packs(packs, checkpoint, {})
    return _together("dense", section, Places(checkpoint, packs, folder, validation), seed, progress)


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
    places = Places(checkpoint, packs, folder, validation)
    facts = _together("mixture", section, places, seed, progress, **_mixture_facts(section, places))
    write_families(folder, {**read_families(checkpoint), "trained_with": section.routing})
    return facts


def train_expert(
    section: MoeTrainingSection, checkpoint: Path, packs: Path, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train one family's expert of a mixture and save its rows alone."""
    places = Places(checkpoint, packs, folder)
    return _together("expert", section, places, seed, progress, **_mixture_facts(section, places))


def _mixture_facts(section: MoeTrainingSection, places: Places) -> dict[str, Any]:
    """Check what a mixture is to be trained with; returns the one expert that trains, if so, and families' names."""
    quiet()
    check_installed(section)
    families = read_families(places.source)
    for each in (places.packs, places.validation):
        if each is not None:
            _check_packs(each, places.source, families["expert_of"])
    made = families.get("made", {})
    alike = made.get("router_init") == "zero" and not made.get("noise") and not made.get("reinit")
    if alike and "trained_with" not in families and section.routing == "topk":
        what = "has routers of zeros and equal experts: top-k sends every token to the same ones for ever"
        raise CheckpointError(places.source, what, "train with routing hybrid, or build it with noise")
    languages = {family["name"]: family["languages"] for family in families["families"]}
    expert = chosen_expert(section, languages, families["expert_of"])
    check_has_text(section, expert, read_json(places.packs / META)["expert_of"].values())
    config = read_config(places.source)
    check_routers_learn(section, config["num_experts_per_tok"], config["norm_topk_prob"])
    return {"expert": expert, "names": list(languages)}


def _together(
    kind: str, section: TrainingSection, places: Places, seed: int, progress: Progress, **more: Any
) -> dict[str, Any]:
    """Have all processes do a training and its saving."""
    paths = [None if path is None else str(path) for path in places]
    distributed.tell({"kind": kind, "section": section.model_dump(), "places": paths, "seed": seed, "more": more})
    return _WORK[kind](section, places, seed, progress, **more)


def follow() -> None:
    """Take part in every training that the first process leads, until it says that there is none left."""
    quiet()
    while (call := distributed.told()) is not None:
        kind: type[TrainingSection] = ScratchSection if call["kind"] == "base" else MoeTrainingSection
        source, packs, folder, validation = call["places"]
        places = Places(Path(source), Path(packs), Path(folder), validation and Path(validation))
        _WORK[call["kind"]](kind(**call["section"]), places, call["seed"], Silent(), **call["more"])


def _base(section: ScratchSection, places: Places, seed: int, progress: Progress, length: int) -> dict[str, Any]:
    vocabulary = Tokenizer.from_file(str(places.source / "tokenizer.json"))
    model = new_model(section, vocabulary, length, seed)
    facts = fit(model, places.packs, section, places.folder, seed, progress, validation=places.validation)
    return {**facts, **save_stock(model, places.source, places.folder)}


def _dense(section: MoeTrainingSection, places: Places, seed: int, progress: Progress) -> dict[str, Any]:
    model = load_model(places.source)
    loop = TrainingSection(**section.model_dump(include=set(TrainingSection.model_fields)))
    facts = fit(model, places.packs, loop, places.folder, seed, progress, validation=places.validation)
    return {**facts, **save_stock(model, places.source, places.folder)}


def _mixture(
    section: MoeTrainingSection,
    places: Places,
    seed: int,
    progress: Progress,
    expert: int | None,
    names: Sequence[str],
) -> dict[str, Any]:
    model = load_model(places.source)
    validation = places.validation
    facts = fit(model, places.packs, section, places.folder, seed, progress, expert, names=names, validation=validation)
    return {**facts, **save_stock(model, places.source, places.folder)}


def _expert(
    section: MoeTrainingSection, places: Places, seed: int, progress: Progress, expert: int, names: Sequence[str]
) -> dict[str, Any]:
    model = load_model(places.source)
    facts = fit(model, places.packs, section, places.folder, seed, progress, expert, names=names)
    whose = {"family": section.family, "routing": section.routing}
    return {**facts, **save_expert(model, expert, whose, places.folder)}


_WORK: dict[str, Callable[..., dict[str, Any]]] = {
    "base": _base, "dense": _dense, "mixture": _mixture, "expert": _expert,
}  # fmt: skip


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
