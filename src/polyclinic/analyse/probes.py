"""Fixed probe tokens routed by each checkpoint of a training, for how early routing settles."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from polyclinic.analyse.capture import Call, heaviest, num_experts, watching
from polyclinic.analyse.sampling import Kept
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
def probe(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return first picks (L, T) and all picks (L, T, K) of the rows' tokens, in one order for every checkpoint."""
    first: list[list[Any]] = []
    picks: list[list[Any]] = []
    kept_T = torch.zeros(0, dtype=torch.bool)
    num = num_experts(model)

    def see(position: int, call: Call) -> None:
        first[-1].append(heaviest(call, num)[kept_T].to(torch.int16).cpu().numpy())
        picks[-1].append(call.picks_TK[kept_T].to(torch.int16).cpu().numpy())

    with watching(model, see):
        for batch in batches(rows):
            tokens_BS = padded([rows[i] for i in batch]).to(model.device)
            sizes = torch.tensor([len(rows[i]) for i in batch])
            kept_T = (torch.arange(tokens_BS.shape[1]) < sizes[:, None]).flatten().to(model.device)
            first.append([])
            picks.append([])
            model.get_decoder()(input_ids=tokens_BS, use_cache=False)
    return (
        np.concatenate([np.stack(part) for part in first], axis=1),
        np.concatenate([np.stack(part) for part in picks], axis=1),
    )


def saturation(
    model: PreTrainedModel,
    documents: Sequence[Kept],
    layers: Sequence[int],
    checkpoints: Sequence[tuple[str, Callable[[PreTrainedModel], None]]],
) -> dict[str, Any]:
    """Return, per checkpoint and layer, the share of picks and of first picks that the last one makes too.

    The model is left with the weights of the last checkpoint.
    """
    rows = probe_rows(documents)
    routed = []
    for _, put in checkpoints:
        put(model)
        routed.append(probe(model, rows))
    last_LT, last_LTK = routed[-1]
    top_k = last_LTK.shape[2]
    out = []
    for (name, _), (first_LT, picks_LTK) in zip(checkpoints, routed, strict=True):
        same_L = (picks_LTK[..., :, None] == last_LTK[..., None, :]).any(-1).sum((1, 2)) / (last_LT.shape[1] * top_k)
        first_L = (first_LT == last_LT).mean(1)
        out.append({"checkpoint": name, "picks": same_L.round(6).tolist(), "first": first_L.round(6).tolist()})
    return {"n": int(last_LT.shape[1]), "layers": list(layers), "checkpoints": out}
