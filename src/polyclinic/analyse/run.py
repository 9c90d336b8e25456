"""The analyse step: text routed through a mixture, as counts and as one JSON file of facts."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from polyclinic.analyse import capture, texts
from polyclinic.analyse.asked import Asked
from polyclinic.analyse.causal import Choices, interventions
from polyclinic.analyse.counting import Counts
from polyclinic.analyse.measures.describe import describe
from polyclinic.analyse.measures.saturation import saturation
from polyclinic.analyse.probes import picks_of
from polyclinic.analyse.route import encoder, families_of, route, speller, windows
from polyclinic.analyse.sampling import Sample, quota
from polyclinic.analyse.tally import Tally
from polyclinic.analyse.tally_files import save_tally
from polyclinic.analyse.token_table import write_tokens
from polyclinic.moe.attach import Routing, attach, detach
from polyclinic.moe.checkpoint import POLYCLINIC, load_model, read_families
from polyclinic.progress import Progress
from polyclinic.recipe import AnalyseSection
from polyclinic.records import Document
from polyclinic.runs import write_json

RESULT, CAUSAL = "routing.json", "causal.json"
TALLY, FORCED, TOKENS = "tally.npz", "tally_forced.npz", "tokens.parquet"


def run(
    section: AnalyseSection,
    checkpoint: Path,
    documents: Iterable[Document],
    folder: Path,
    seed: int,
    progress: Progress,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Route documents without family ids and write tally and facts; documents are read more than once.

    Raises DataError if fewer than two languages have text, CheckpointError if the model is no mixture.
    """
    asked = asked or Asked()
    families, model = families_in(checkpoint, asked.forced), load_model(checkpoint).eval()
    experts, encode = capture.num_experts(model), encoder(checkpoint)
    found = texts.survey(
        documents, lambda document: sum(encode([document])[0].counts), experts, asked.languages, asked.cap
    )
    _say(found, progress)
    walk = _Walk(model, found, families["expert_of"], lambda: windows(documents, found, encode), progress)
    counts = walk.count(asked.tokens)
    tally = counts.tally()
    save_tally(folder / TALLY, tally)
    facts = {"family_ids": "off", **families, "own_expert": own_expert(tally, families["expert_of"])}
    facts |= describe(tally, families if families["families"] else None, section.shuffles, seed)
    facts |= {"parallel": found.parallel, "left_out": found.left_out, "text": texts.fingerprint(documents, found)}
    spell(facts["specific"], speller(checkpoint))
    if asked.tokens and counts.sample is not None:
        write_tokens(folder / TOKENS, counts.sample.documents(), tally.layers, tally.languages)
    if asked.forced:
        facts["forced"] = _forced(walk, families["expert_of"], folder)
    if asked.checkpoints and counts.sample is not None:
        picks = picks_of(model, counts.sample.documents(), asked.checkpoints)
        facts["saturation"] = saturation(picks, asked.checkpoints[-1][0], experts)
    write_json(folder / RESULT, plain(facts))
    if asked.causal:
        write_json(folder / CAUSAL, plain(_causal(checkpoint, documents, asked, seed, progress)))
    return {"documents": walk.documents, "tokens": tally.num_tokens}


def families_in(checkpoint: Path, is_needed: bool) -> dict[str, Any]:
    """Return the families of a mixture that has them; others have none, unless they are needed."""
    if is_needed or (checkpoint / POLYCLINIC).is_file():
        facts = read_families(checkpoint)
        return {key: facts[key] for key in ("families", "expert_of")}
    return {"families": [], "expert_of": {}}


def own_expert(tally: Tally, expert_of: Mapping[str, int]) -> dict[str, float]:
    """Return, per language with a family, the share of tokens with its expert among the unforced picks.

    Mean over sparse layers.
    """
    tokens_G = np.bincount(tally.bucket_language, tally.tokens_B, len(tally.languages))
    shares_G = tally.own_GL.mean(1) / tokens_G
    return {code: float(share) for code, share in zip(tally.languages, shares_G, strict=True) if code in expert_of}


def spell(specific: Mapping[str, Any], spelt: Callable[[int], str | None]) -> None:
    """Give each listed token id its text, None where it is part of a character."""
    for layer in specific["layers"]:
        for row in (row for expert in layer["experts"] for row in expert):
            row["text"] = spelt(row["id"])


def _causal(
    checkpoint: Path, documents: Iterable[Document], asked: Asked, seed: int, progress: Progress
) -> dict[str, Any]:
    """Measure what experts are worth on a few documents of each language, translations chosen together."""
    few = texts.survey(documents, lambda document: 1, 1, asked.languages, asked.causal)
    chosen = [document for document in documents if few.takes(document)]
    progress.say(f"what experts are worth, on {len(chosen):,} documents")
    return interventions(checkpoint, chosen, Choices(seed=seed), progress)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say(found: texts.Survey, progress: Progress) -> None:
    progress.say(f"{found.routed():,} documents in {len(found.languages)} languages, family ids off")
    if found.left_out:
        listed = ", ".join(f"{code} ({tokens} tokens)" for code, tokens in found.left_out.items())
        progress.say(f"too little text, left out: {listed}")
    if not found.parallel:
        progress.say("no parallel texts: what compares translations can say nothing here")


class _Walk:
    """One model, its texts, and how often they were routed."""

    def __init__(
        self,
        model: PreTrainedModel,
        found: texts.Survey,
        expert_of: dict[str, int],
        read: Callable[[], Iterable[Any]],
        progress: Progress,
    ) -> None:
        self.model, self._found, self._read, self._progress = model, found, read, progress
        self._families = families_of(found.languages, expert_of)
        self._layers = [place.layer for place in capture.places(model)]
        self.documents = 0

    def count(self, with_weights: bool = False, is_forced: bool = False) -> Counts:
        """Route all texts once."""
        languages, experts = self._found.languages, capture.num_experts(self.model)
        top_k = int(getattr(self.model.config.get_text_config(), "num_experts_per_tok", 0) or experts)
        tokens = quota(len(self._layers), top_k, len(languages))
        sample = Sample(len(self._layers), len(languages), tokens, with_weights)
        counts = Counts(self._layers, experts, languages, self._families, is_forced, sample)
        total = self._found.routed()
        route(self.model, self._read(), counts, self._families if is_forced else None, lambda n: self._at(n, total))
        return counts

    def _at(self, done: int, total: int) -> None:
        self.documents = done
        self._progress.advance(min(done, total), total)


def _forced(walk: _Walk, expert_of: dict[str, int], folder: Path) -> dict[str, Any]:
    """Route the same texts with every token told its family: a view of its own, never a claim."""
    attach(walk.model, Routing.HYBRID)
    try:
        tally: Tally = walk.count(is_forced=True).tally()
    finally:
        detach(walk.model)
    save_tally(folder / FORCED, tally)
    return {"family_ids": "on", "tokens": tally.num_tokens, "own_expert_unforced": own_expert(tally, expert_of)}
