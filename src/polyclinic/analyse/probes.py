"""Fixed probe tokens routed by each checkpoint of a training, for how early routing settles."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from polyclinic.analyse.capture import Call, watching
from polyclinic.analyse.sampling import Kept
from polyclinic.analyse.tally import IntArray
from polyclinic.moe.forward import batches, padded

MAX_PROBES = 8192  # tokens


def probe_rows(documents: Sequence[Kept]) -> list[list[int]]:
    """Return the tokens of documents, a few of each language in turn, up to MAX_PROBES tokens."""
    seen: Counter[int] = Counter()
    turns = []
    for index, document in enumerate(documents):
        turns.append((seen[document.language], index))
        seen[document.language] += 1
    rows, total = [], 0
    for _, index in sorted(turns):
        row = documents[index].ids_T.tolist()[: MAX_PROBES - total]
        if row:
            rows.append(row)
            total += len(row)
    return rows


@torch.no_grad()
def probe(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> IntArray:
    """Return the picks (T, L, K) of the rows' tokens, heaviest first, in one order for every checkpoint."""
    picks: list[list[IntArray]] = []
    kept_T = torch.zeros(0, dtype=torch.bool)

    def see(_: int, call: Call) -> None:
        order_TK = call.weights_TK.argsort(dim=-1, descending=True, stable=True)
        picks[-1].append(call.picks_TK.gather(1, order_TK)[kept_T].cpu().numpy())

    with watching(model, see):
        for batch in batches(rows):
            tokens_BS = padded([rows[i] for i in batch]).to(model.device)
            sizes = torch.tensor([len(rows[i]) for i in batch])
            kept_T = (torch.arange(tokens_BS.shape[1]) < sizes[:, None]).flatten().to(model.device)
            picks.append([])
            model.get_decoder()(input_ids=tokens_BS, use_cache=False)
    return np.concatenate([np.stack(part, axis=1) for part in picks])


def picks_of(
    model: PreTrainedModel,
    documents: Sequence[Kept],
    checkpoints: Sequence[tuple[str, Callable[[PreTrainedModel], None]]],
) -> dict[str, IntArray]:
    """Return the picks (T, L, K) of the same probe tokens by each checkpoint, by its name.

    The model is left with the weights of the last one.
    """
    rows, out = probe_rows(documents), {}
    for name, put in checkpoints:
        put(model)
        out[name] = probe(model, rows)
    return out
