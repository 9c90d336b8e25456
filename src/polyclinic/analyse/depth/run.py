"""`analyse depth`: how apart languages are in each layer of a dense model, and where that says to place experts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from polyclinic.analyse.depth import overlap
from polyclinic.analyse.depth.dense import down_projections, refuse_mixture
from polyclinic.analyse.depth.parallel import FEWEST, Alignment, align
from polyclinic.analyse.depth.place import best_cut, last_layers, rise_of
from polyclinic.analyse.depth.reading import Reading, read
from polyclinic.analyse.depth.sample import BUCKETS, bucket, sample
from polyclinic.analyse.passages import Passage, passages
from polyclinic.moe.checkpoint import load_model, read_config
from polyclinic.progress import Progress
from polyclinic.records import Document
from polyclinic.runs import write_json

RESULT = "depth.json"
MAX_TOKENS = 256  # of one document
NAIVE = 2  # last layers, whatever the model: the default of an upcycle
DOCUMENTS = 100  # of a language
RESAMPLES = 200

Floats = NDArray[np.float64]


def run(
    checkpoint: Path,
    documents: Iterable[Document],
    folder: Path,
    progress: Progress,
    num: int = DOCUMENTS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Mapping[str, Any]:
    """Write depth.json: separation of languages by layer of a dense model, and the layers recommended.

    At most `num` documents of a language are read. Raises CheckpointError for a mixture or a model
    without gated FFNs, DataError for fewer than two languages or too little text.
    """
    refuse_mixture(read_config(checkpoint), checkpoint)
    chosen = sample(documents, num)
    model = load_model(checkpoint).eval()
    down_projections(model)
    found = passages(checkpoint, chosen, MAX_TOKENS)
    progress.say(f"reading {len(found):,} documents, {sum(len(p.tokens) for p in found):,} tokens")
    result = measure(model, found, progress, resamples, seed)
    write_json(folder / RESULT, result)
    return {"documents": len(found), "last_layers": result["recommended"]["last_layers"]}


def measure(
    model: PreTrainedModel, found: Sequence[Passage], progress: Progress, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the facts of `run`, of a loaded model and of texts in tokens."""
    reading = read(model, found, progress)
    curves = Curves(reading, align(reading.states_GNLH, reading.has_GN))
    drawn = curves.resampled(resamples, seed)
    documents, tokens = Counter(p.language for p in found), reading.tokens_BG.sum(0).tolist()
    return {
        "model": model.config.model_type,
        "languages": {
            code: {"documents": documents[code], "tokens": n} for code, n in zip(reading.languages, tokens, strict=True)
        },
        "units": reading.units,
        "units_read": reading.relevance_BGLU.shape[-1],
        "parallel": curves.parallel(),
        "layers": curves.layers(drawn),
        "overlap": curves.once("relevance").round(4).tolist(),
        "recommended": recommended(curves.curve(), drawn),
    }


@dataclass(frozen=True)
class Curves:
    """Curves by layer out of a reading, from all of it or from drawn buckets."""

    reading: Reading
    alignment: Alignment

    def once(self, kind: str, weight_B: Floats | None = None) -> Floats:
        """Return the overlap of languages by relevance or activity, (L, G, G)."""
        sums = {"relevance": self.reading.relevance_BGLU, "activity": self.reading.activity_BGLU}[kind]
        weight_B = np.ones(BUCKETS) if weight_B is None else weight_B
        return overlap.overlaps(overlap.halves(sums, self.reading.tokens_BG, weight_B))

    def aligned(self, values_NL: Floats, weight_B: Floats | None = None) -> Floats:
        """Return the mean per layer over the texts that have a translation."""
        weight_B = np.ones(BUCKETS) if weight_B is None else weight_B
        weight_N = weight_B[[bucket(group) for group in self.reading.groups]]
        there = ~np.isnan(values_NL[:, 0])
        return np.asarray(np.average(values_NL[there], axis=0, weights=weight_N[there]))

    def curve(self, weight_B: Floats | None = None) -> Floats:
        """Return separation by layer: mean of that of active units, of relevant ones, and 1 - margin of translations.

        Relevance alone would not do: its gradient comes through the layers above, and so does their separation.
        """
        parts = [overlap.separation(self.once(kind, weight_B)) for kind in ("activity", "relevance")]
        if self.alignment.pairs:
            parts.append(1 - self.aligned(self.alignment.margin_NL, weight_B))
        return np.asarray(np.mean(parts, axis=0))

    def resampled(self, resamples: int, seed: int) -> Floats:
        """Return the curve of each draw of buckets, within their halves; draws that miss a language are left out."""
        generator, out = np.random.default_rng(seed), []
        half = BUCKETS // 2
        for _ in range(resamples):
            weight_B = generator.multinomial(half, np.full(half, 1 / half), size=2).T.ravel().astype(float)
            try:
                out.append(self.curve(weight_B))
            except (ValueError, ZeroDivisionError):  # a half, or all translations, without weight
                continue
        return np.array(out)

    def parallel(self) -> dict[str, Any]:
        """Say what the similarity of translations rests on, or why it is left out."""
        texts, pairs = len(self.reading.groups), self.alignment.pairs
        if not pairs:
            return {"texts": texts, "left_out": f"no two languages share {FEWEST} texts (parallel_id)"}
        return {"texts": texts, "pairs": pairs}

    def layers(self, drawn: Floats) -> list[dict[str, Any]]:
        """Return the row of each layer."""
        columns: dict[str, Floats] = {"separation": self.curve()}
        if len(drawn):
            columns["low"], columns["high"] = np.quantile(drawn, (0.025, 0.975), axis=0)
        for kind in ("relevance", "activity"):
            found = self.once(kind)
            columns[f"{kind}_within"], columns[f"{kind}_between"] = overlap.within_between(found)
            columns[f"{kind}_separation"] = overlap.separation(found)
        tokens_G = self.reading.tokens_BG.sum(0)
        means = self.reading.relevance_BGLU.sum(0) / tokens_G[:, None, None]
        columns["specificity"] = overlap.specificity(means).mean(1)
        if self.alignment.pairs:
            columns["margin"] = self.aligned(self.alignment.margin_NL)
            columns["retrieval"] = self.aligned(self.alignment.found_NL)
        rows = zip(*(values.round(6).tolist() for values in columns.values()), strict=True)
        return [{"layer": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]


def recommended(curve: Floats, drawn: Floats) -> dict[str, Any]:
    """Return how many last layers a curve recommends, with the interval over draws, beside the naive constant."""
    cut, num = best_cut(curve), last_layers(curve)
    draws = np.array([last_layers(row) for row in drawn], dtype=np.int64)
    naive = rise_of(curve, max(1, len(curve) - NAIVE))
    out: dict[str, Any] = {"last_layers": num, **cut._asdict(), "draws": len(draws)}
    if len(draws):
        low, high = np.quantile(draws, (0.025, 0.975), method="inverted_cdf").tolist()
        counts = {str(n): int((draws == n).sum()) for n in np.unique(draws).tolist()}
        out |= {"low": low, "high": high, "draws_of": counts}
    return {**out, "naive": {"last_layers": NAIVE, "rise": naive.rise, "explained": naive.explained}}


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return what a person reads of a result."""
    out = [
        f"layer {r['layer']:>3}   separation {r['separation']:.3f} ({r.get('low', r['separation']):.3f} to "
        f"{r.get('high', r['separation']):.3f})   "
        f"active units {r['activity_separation']:.3f}   relevant {r['relevance_separation']:.3f}"
        + (f"   margin {r['margin']:.3f}   retrieval {100 * r['retrieval']:.0f} %" if "margin" in r else "")
        for r in result["layers"]
    ]
    if "left_out" in result["parallel"]:
        out.append(f"similarity of translations left out: {result['parallel']['left_out']}")
    found, total = result["recommended"], len(result["layers"])
    if not found["last_layers"]:
        out.append(f"no rise towards the output that explains a place for experts ({total} layers)")
    else:
        interval = f" (95 % {found['low']} to {found['high']})" if "low" in found else ""
        out.append(
            f"experts in the last {found['last_layers']}{interval} of {total} layers: a rise of {found['rise']:.3f}, "
            f"which explains {100 * found['explained']:.0f} %"
        )
    naive = found["naive"]
    how = f"a rise of {naive['rise']:.3f}, which explains {100 * naive['explained']:.0f} %"
    return [*out, f"the last {naive['last_layers']} whatever the model: {how}"]
