"""Router rows from what the families look like to the dense parent.

Row e points from the mean of all families to the mean of family e, both taken of the states that
enter the layer's FFN. Two things keep the router from preferring one expert for every token: rows
lose what lies along the mean of all, which every state has a large part of, and have one length.
So the mean state of family e scores row e highest (Cauchy-Schwarz). Rows are scaled together to
logits with a standard deviation of one over the texts: a preference, not a decision. The idea is
mergekit-moe's (gate mode "hidden", https://github.com/arcee-ai/mergekit/blob/main/docs/moe.md).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from polyclinic.errors import CheckpointError, DataError
from polyclinic.families import Preset
from polyclinic.moe.blueprint import Mixture
from polyclinic.moe.convert import ROUTER_STD
from polyclinic.moe.skeleton import Parts

TEXTS_PER_LANGUAGE = 4
TEXT_TOKENS = 64


def centroids(dense: Path, mixture: Mixture, preset: Preset, texts: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Return router name -> rows (experts, hidden), measured on a few texts of each language.

    A family without text gets a random row of the usual size. Raises DataError where fewer than two
    families have text, CheckpointError where the parent has no tokenizer.json.
    """
    rows, families = _rows(dense, preset, texts)
    if len(set(families)) < 2:  # noqa: PLR2004 - one family has nothing to be told from
        raise DataError("upcycle.router_init", "texts of fewer than two families", "give text, or router_init random")
    tokens_BS, mask_BS = _padded(rows)
    seen: dict[int, Tensor] = {}
    parts = Parts(dense)
    for index in mixture.sparse_layers:
        layer = parts.model.get_decoder().layers[index]
        layer.mlp.register_forward_pre_hook(partial(_keep, seen, index))
    parts.states(tokens_BS, mask_BS)
    family_T = torch.tensor(families)[:, None].expand_as(mask_BS)[mask_BS.bool()]
    generator = torch.Generator().manual_seed(mixture.seed)
    return {
        f"model.layers.{index}.mlp.gate.weight": _centroid_rows(
            states[mask_BS.bool()], family_T, mixture.num_experts, generator
        )
        for index, states in seen.items()
    }


def _keep(seen: dict[int, Tensor], index: int, _: nn.Module, args: Any) -> None:
    seen[index] = args[0]


def _rows(dense: Path, preset: Preset, texts: Mapping[str, Sequence[str]]) -> tuple[list[list[int]], list[int]]:
    """Return token rows and the family of each."""
    path = dense / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(dense, "holds no tokenizer.json", "give a checkpoint with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    rows, families = [], []
    for code in sorted(texts):
        for text in texts[code][:TEXTS_PER_LANGUAGE]:
            ids = tokenizer.encode(text, add_special_tokens=False).ids[:TEXT_TOKENS]
            if ids:
                rows.append(ids)
                families.append(preset.expert_of(code))
    return rows, families


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    tokens_BS = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask_BS = torch.zeros_like(tokens_BS)
    for i, row in enumerate(rows):
        tokens_BS[i, : len(row)] = torch.tensor(row)
        mask_BS[i, : len(row)] = 1
    return tokens_BS, mask_BS


def _centroid_rows(states_TH: Tensor, family_T: Tensor, num_experts: int, generator: torch.Generator) -> Tensor:
    """Return the scaled rows of one layer; every family counts alike, however much text it has."""
    rows_EH = ROUTER_STD * torch.randn(num_experts, states_TH.shape[1], generator=generator)
    present = sorted(set(family_T.tolist()))
    means_FH = torch.stack([states_TH[family_T == f].mean(0) for f in present])
    common_H = functional.normalize(means_FH.mean(0), dim=0)
    apart_FH = means_FH - means_FH.mean(0)
    apart_FH = functional.normalize(apart_FH - (apart_FH @ common_H)[:, None] * common_H)
    rows_EH[present] = apart_FH / (states_TH @ apart_FH.T).std().clamp(min=1e-6)
    return rows_EH
