"""Batches of texts of unequal length: none lost, none wide, padding without effect."""

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.moe.forward import BATCH_TOKENS, batches, padded

lengths = st.lists(st.one_of(st.integers(1, 40), st.integers(500, 5000)), max_size=60)


@settings(deadline=None, max_examples=50)
@given(lengths)
def test_every_row_is_in_one_batch_of_bounded_padded_size(sizes: list[int]) -> None:
    found = list(batches([range(n) for n in sizes]))
    assert sorted(i for batch in found for i in batch) == list(range(len(sizes)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(sizes[i] for i in batch) <= BATCH_TOKENS


@settings(deadline=None, max_examples=50)
@given(lengths)
def test_batches_go_from_short_rows_to_long_and_none_could_take_the_next_row(sizes: list[int]) -> None:
    found = list(batches([range(n) for n in sizes]))
    order = [sizes[i] for batch in found for i in batch]
    assert order == sorted(order)
    for batch, following in pairwise(found):
        assert (len(batch) + 1) * sizes[following[0]] > BATCH_TOKENS


def test_rows_are_padded_with_zeros_behind() -> None:
    out = padded([[5, 6, 7], [8], [9, 10]])
    assert out.tolist() == [[5, 6, 7], [8, 0, 0], [9, 10, 0]]
    assert out.dtype == torch.long


def test_padding_changes_no_logit_of_a_real_token(mixture: Any, kind: str) -> None:
    model = mixture(kind)
    rows = [[int(t) for t in torch.randint(1, 96, (n,))] for n in (3, 9, 5)]
    together = model(padded(rows)).logits
    for row, got in zip(rows, together, strict=True):
        torch.testing.assert_close(got[: len(row)], model(torch.tensor([row])).logits[0])
