"""Router rows from what the families look like to the dense parent.

Row e points from the mean of all families to the mean of family e, both taken of the states that
enter the layer's FFN. Two things keep the router from preferring one expert for every token: rows
lose what lies along the mean of all, which every state has a large part of, and have one length.
So the mean state of family e scores row e highest (Cauchy-Schwarz), also of the rows of families
without text, which point anywhere. Rows are scaled together to logits with a standard deviation of
one over the texts of the others: a preference, not a decision. The idea is
mergekit-moe's (gate mode "hidden", https://github.com/arcee-ai/mergekit/blob/main/docs/moe.md).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from polyclinic.errors import CheckpointError, DataError
from polyclinic.families import Preset
from polyclinic.moe.blueprint import Mixture
from polyclinic.moe.skeleton import Parts

TEXTS_PER_LANGUAGE = 4
TEXT_TOKENS = 64


def centroids(dense: Path, mixture: Mixture, preset: Preset, texts: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Return router name -> rows (experts, hidden), measured on a few texts of each language.

    A family without text gets a random direction, treated alike. Raises DataError where fewer than two
    families have text, CheckpointError where the parent has no tokenizer.json.
    """
    rows, families = _rows(dense, preset, texts)
    if len(set(families)) < 2:  # noqa: PLR2004 - one family has nothing to be told from
        raise DataError("upcycle.router_init", "texts of fewer than two families", "give text, or router_init random")
    tokens_BS, mask_BS = _padded(rows)
    family_T = torch.tensor(families)[:, None].expand_as(mask_BS)[mask_BS]
    found: dict[str, Tensor] = {}
    parts = Parts(dense)
    generator = torch.Generator().manual_seed(mixture.seed)

    def measure(name: str, _: nn.Module, args: Any) -> None:
        # At once: the states of one layer at a time are enough to hold.
        found[name] = _centroid_rows(args[0][mask_BS], family_T, mixture.num_experts, generator)

    for index in mixture.sparse_layers:
        layer = parts.model.get_decoder().layers[index]
        layer.mlp.register_forward_pre_hook(partial(measure, f"model.layers.{index}.mlp.gate.weight"))
    parts.states(tokens_BS, mask_BS.long())
    return found


def _rows(dense: Path, preset: Preset, texts: Mapping[str, Sequence[str]]) -> tuple[list[list[int]], list[int]]:
    """Return token rows and the family of each."""
    path = dense / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(dense, "holds no tokenizer.json", "give a checkpoint with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()  # which a tokenizer.json may ask for: padding is no text
    tokenizer.no_truncation()
    rows, families = [], []
    for code in sorted(texts):
        read = (tokenizer.encode(text, add_special_tokens=False).ids[:TEXT_TOKENS] for text in texts[code])
        some = list(islice(filter(None, read), TEXTS_PER_LANGUAGE))
        rows += some
        families += [preset.expert_of(code)] * len(some)
    return rows, families


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    tokens_BS = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask_BS = torch.zeros_like(tokens_BS, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens_BS[i, : len(row)] = torch.tensor(row)
        mask_BS[i, : len(row)] = True
    return tokens_BS, mask_BS


def _centroid_rows(states_TH: Tensor, family_T: Tensor, num_experts: int, generator: torch.Generator) -> Tensor:
    """Return the scaled rows of one layer; every family counts alike, however much text it has."""
    present = sorted(set(family_T.tolist()))
    means_FH = torch.stack([states_TH[family_T == f].mean(0) for f in present])
    common_H = functional.normalize(means_FH.mean(0), dim=0)
    rows_EH = torch.randn(num_experts, states_TH.shape[1], generator=generator)
    rows_EH[present] = means_FH - means_FH.mean(0)
    rows_EH = functional.normalize(rows_EH - (rows_EH @ common_H)[:, None] * common_H)
    return rows_EH / (states_TH @ rows_EH[present].T).std().clamp(min=1e-6)
