"""Tokens and families that tests of routing hand to tiny models."""

import torch
from torch import Tensor


def some_tokens(rows: int = 2, length: int = 7, seed: int = 0) -> Tensor:
    """Return random tokens (rows, length), none of them padding."""
    return torch.randint(1, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def ids_like(tokens: Tensor, *families: int) -> Tensor:
    """Return one family per row, on every token."""
    return torch.tensor(families)[:, None].expand(tokens.shape).contiguous()
