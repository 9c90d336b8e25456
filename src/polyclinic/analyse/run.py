"""The analyse step: routes of held-out text through a trained mixture, as one JSON file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from polyclinic.analyse.capture import Encoded, Routes, capture
from polyclinic.analyse.information import layer_information
from polyclinic.errors import DataError
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.progress import Progress
from polyclinic.prompts import plain_text
from polyclinic.recipe import AnalyseSection
from polyclinic.records import Document, held_out
from polyclinic.runs import write_json

RESULT = "routing.json"
MAX_TOKENS = 512  # of one document


def run(
    section: AnalyseSection,
    checkpoint: Path,
    documents: Iterable[Document],
    folder: Path,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Route held-out documents without family ids and write counts, shares and information.

    Raises DataError if fewer than two languages have text.
    """
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is text
    chosen = held_out(documents, section.max_documents_per_language)
    encodings = [tokenizer.encode(plain_text(d), add_special_tokens=False) for d in chosen]
    encoded = [Encoded(d.language, e.ids[:MAX_TOKENS]) for d, e in zip(chosen, encodings, strict=True)]
    if len({e.language for e in encoded}) < 2:  # noqa: PLR2004
        raise DataError("analyse", "held-out text in fewer than two languages", "raise corpus.held_out")
    progress.say(f"routing {len(encoded):,} documents, {sum(len(e.tokens) for e in encoded):,} tokens, family ids off")
    model = load_model(checkpoint).eval()
    routes = capture(model, encoded)
    top_k = int(model.config.num_experts_per_tok)
    result = describe(routes, read_families(checkpoint), top_k, section.shuffles, seed)
    write_json(folder / RESULT, result)
    return {"documents": len(encoded), "tokens": result["tokens"]}


def describe(routes: Routes, families: dict[str, Any], top_k: int, shuffles: int, seed: int) -> dict[str, Any]:
    """Turn counts into the facts of the report."""
    codes = sorted(set(routes.languages))
    index = np.array([codes.index(code) for code in routes.languages])
    shares: dict[str, list[dict[str, float]]] = {}
    layers = []
    for position, layer in enumerate(routes.layers):
        info = layer_information(layer, routes.first_DLE[:, position], routes.languages, shuffles, seed)
        table = np.zeros((len(codes), routes.all_DLE.shape[2]))
        np.add.at(table, index, routes.all_DLE[:, position])
        layers.append({**info._asdict(), "load": (table.sum(0) / table.sum()).round(6).tolist()})
        shares[str(layer)] = [
            {"language": code, "shares": (row / row.sum()).round(6).tolist()}  # type: ignore[dict-item]
            for code, row in zip(codes, table, strict=True)
        ]
    tokens = {code: int(routes.first_DLE[index == i, 0].sum()) for i, code in enumerate(codes)}
    own = own_expert_share(routes, codes, index, families["expert_of"])
    return {
        "family_ids": "off",
        "top_k": top_k,
        "layers": layers,
        "shares": shares,
        "tokens": sum(tokens.values()),
        "tokens_of": tokens,
        "own_expert": own,
        "families": families["families"],
        "expert_of": families["expert_of"],
    }


def own_expert_share(routes: Routes, codes: list[str], index: Any, expert_of: dict[str, int]) -> dict[str, float]:
    """Return, per language, the share of tokens whose own family's expert is among the free picks.

    Mean over sparse layers. Each token counts an expert once, so this is counts / tokens.
    """
    out = {}
    for i, code in enumerate(codes):
        if code in expert_of:
            chosen = routes.all_DLE[index == i]
            tokens = routes.first_DLE[index == i].sum((0, 2))
            out[code] = float((chosen.sum(0)[:, expert_of[code]] / tokens).mean())
    return out
