"""What an expert is worth: held-out loss of each language without it, with a family forced, with few experts.

Which expert a token goes to says nothing of what the expert does for it. Here the routing of a
mixture is changed and the loss of the same texts measured again: a matrix of interventions by
languages, each cell the change in nats per token with a paired bootstrap over documents
(translations of one text share a group and are drawn together). What rounding can make counts as
no change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from polyclinic.analyse.interventions import Intervention, Shares, drops, forcings, keeps
from polyclinic.analyse.passages import Passage, passages
from polyclinic.analyse.removal import How, follows, routers, without
from polyclinic.errors import CheckpointError, DataError
from polyclinic.intervals import paired_change
from polyclinic.moe.attach import Routing, attach, detach, routing
from polyclinic.moe.checkpoint import POLYCLINIC, load_model, read_families
from polyclinic.moe.forward import Batch, next_losses, predicting
from polyclinic.progress import Progress, Silent
from polyclinic.records import Document

MAX_TOKENS = 512  # of one document
ROUNDING = 1e-5  # nats per token that adding up in another order can make in float32

Floats = NDArray[np.float64]
Around = Callable[[Batch], AbstractContextManager[None]]
Texts = Mapping[str, Sequence[Passage]]  # by language


class Choices(NamedTuple):
    """Which interventions there are to be, and how their intervals are drawn."""

    how: How = "next"  # what takes the place of an expert that is dropped, see `removal`
    layers: Sequence[int] | None = None  # all that hold experts when left out
    keep: Sequence[int] | None = None  # how many experts are left to a language; the picks of a token when left out
    resamples: int = 1000
    seed: int = 0


def interventions(
    checkpoint: Path, documents: Iterable[Document], choices: Choices | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Return the change of held-out loss per language under each intervention on a mixture's routing.

    Rows: each expert dropped in each layer, and in all of them at once; the most picked experts of
    each language left alone; where the checkpoint names families, each forced on every text, and
    each language's own on its text. One forward over all documents for each row.
    Raises CheckpointError for what is no mixture or picks by a rule not known here, DataError for no text.
    """
    texts = by_language(passages(checkpoint, documents, MAX_TOKENS))
    families = read_families(checkpoint) if (checkpoint / POLYCLINIC).is_file() else None
    model = load_model(checkpoint).eval()
    return measure(model, texts, families, choices or Choices(), progress or Silent())


def by_language(found: Iterable[Passage]) -> Texts:
    """Sort passages in which something is guessed by language; raises DataError where there is none."""
    out: dict[str, list[Passage]] = {}
    for passage in found:
        if len(passage.tokens) > 1:
            out.setdefault(passage.language, []).append(passage)
    if not out:
        raise DataError("analyse", "no text of two tokens or more", "give text of the languages to be compared")
    return dict(sorted(out.items()))


def measure(
    model: PreTrainedModel, texts: Texts, families: Mapping[str, Any] | None, choices: Choices, progress: Progress
) -> dict[str, Any]:
    """Return what `interventions` does, of a loaded model."""
    layers = _chosen(model, choices.layers)
    counts = Counts(model, check=choices.how == "next")
    before = {code: nats(model, rows, partial(counts.adding, code)) for code, rows in texts.items()}
    shares, top_k = counts.shares(), counts.top_k
    plan = [*drops(shares, layers), *keeps(shares, layers, choices.keep or (top_k,))]
    left_out = []
    if families is not None and len(families["families"]) == getattr(model.config, "num_experts", None):
        plan += forcings(families, list(texts))
    else:
        left_out.append("forced families: the checkpoint names none")
    rows = []
    for number, row in enumerate(plan):
        after = _after(model, texts, row, choices.how)
        rows.append({**row.facts, "change": {c: _change(texts[c], before[c], after[c], choices) for c in texts}})
        progress.advance(number + 1, len(plan), "interventions")
    return {
        **{"how": choices.how, "top_k": top_k, "layers": layers, "left_out": left_out, "rows": rows},
        "languages": {code: _language(texts[code], before[code]) for code in texts},
    }


def _chosen(model: PreTrainedModel, layers: Sequence[int] | None) -> list[int]:
    sparse = list(routers(model))
    if unknown := sorted(set(layers or ()) - set(sparse)):
        what = f"layer {unknown[0]} holds no experts"
        raise CheckpointError(model.config.model_type, what, f"layers that do: {', '.join(map(str, sparse))}")
    return sorted(set(layers)) if layers else sparse


class Counts:
    """Counts which experts the real tokens of each language pick, layer by layer."""

    def __init__(self, model: PreTrainedModel, check: bool) -> None:
        self.routers, self.check, self.top_k = routers(model), check, 0
        self._picks: dict[str, dict[int, Floats]] = {}
        self._tokens: dict[str, int] = {}

    @contextmanager
    def adding(self, code: str, batch: Batch) -> Iterator[None]:
        """Count what is routed inside the block as text of a language."""
        self._tokens[code] = self._tokens.get(code, 0) + int(batch.real_BS.sum())
        add = partial(self._add, self._picks.setdefault(code, {}), batch.real_BS.flatten())
        handles = [router.register_forward_hook(partial(add, layer)) for layer, router in self.routers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(
        self, picks: dict[int, Floats], real_T: Tensor, layer: int, router: nn.Module, _: Any, output: Any
    ) -> None:
        if self.check and not follows(router, *output):
            what = f"layer {layer} picks its experts by a rule that is not known here"
            raise CheckpointError(type(router).__name__, what, "drop experts without a next best one (zero)")
        logits_TE, _, picks_TK = output
        self.top_k = picks_TK.shape[1]
        found = np.bincount(picks_TK[real_T].flatten().cpu().numpy(), minlength=logits_TE.shape[1])
        picks[layer] = found + picks.get(layer, np.zeros(len(found)))

    def shares(self) -> Shares:
        """Return the share of each language's tokens that have an expert among their picks."""
        return {c: {i: n / self._tokens[c] for i, n in found.items()} for c, found in self._picks.items()}


def _after(model: PreTrainedModel, texts: Texts, row: Intervention, how: How) -> dict[str, Floats]:
    """Return the nats of each passage by language under an intervention."""
    with ExitStack() as stack:
        stack.enter_context(without(model, row.absent, how))
        if row.forced is None:
            return {code: nats(model, rows) for code, rows in texts.items()}
        attach(model, Routing.HYBRID)
        stack.callback(detach, model)
        return {code: nats(model, rows, partial(_forcing, model, row.forced[code])) for code, rows in texts.items()}


def _forcing(model: PreTrainedModel, expert: int, batch: Batch) -> AbstractContextManager[None]:
    return routing(model, Routing.HYBRID, [expert] * len(batch.indices))


def _free(_: Batch) -> AbstractContextManager[None]:
    return nullcontext()


@torch.no_grad()
def nats(model: PreTrainedModel, rows: Sequence[Passage], around: Around = _free) -> Floats:
    """Return the nats of each passage of one language; languages that share no batch cannot round each other."""
    out = np.zeros(len(rows))
    for batch in predicting([row.tokens for row in rows]):
        with around(batch):
            losses_BS = next_losses(model, batch.tokens_BS)
        out[batch.indices] = losses_BS.double().masked_fill(~batch.real_BS[:, 1:], 0.0).sum(-1).numpy()
    return out


def _change(rows: Sequence[Passage], before: Floats, after: Floats, choices: Choices) -> dict[str, float]:
    """Return the change of nats per token with its interval."""
    tokens = np.array([len(row.tokens) - 1.0 for row in rows])
    after = np.where(np.abs(after - before) < ROUNDING * tokens, before, after)
    groups = [row.group for row in rows]
    return paired_change(before, after, tokens, groups, choices.resamples, choices.seed)._asdict()  # type: ignore[arg-type]


def _language(rows: Sequence[Passage], before: Floats) -> dict[str, Any]:
    tokens = sum(len(row.tokens) - 1 for row in rows)
    return {"documents": len(rows), "tokens": tokens, "loss": float(before.sum() / tokens)}
