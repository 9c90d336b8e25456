"""The sample of tokens: whole documents, the same whatever their order, and what is counted of it."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.analyse import sampling
from polyclinic.analyse.capture import Call
from polyclinic.analyse.counting import Text
from polyclinic.analyse.sampling import Sample, Taken, shared_tokens, top_tokens
from polyclinic.analyse.tally import LayerCounts

EXPERTS, LAYERS, TOP_K = 5, 2, 2
LANGUAGE_B = np.array([0, 0, 1, 2])


def drawn(seed: int, tokens: int = 400, ids: int = 12) -> Taken:
    """Tokens of documents of 20, whose bucket and picks are random; ids 0 to 3 are of language 0 alone."""
    draw = np.random.default_rng(seed)
    bucket = np.repeat(draw.integers(4, size=tokens // 20), 20)
    token = np.where(bucket < 2, draw.integers(ids, size=tokens), draw.integers(4, ids, size=tokens))
    previous = np.where(np.arange(tokens) % 20 == 0, -1, np.roll(token, 1))
    picks = np.stack([[draw.permutation(EXPERTS)[:TOP_K] for _ in range(tokens)] for _ in range(LAYERS)])
    return Taken(token, previous, bucket, picks[..., 0].astype(np.int16), picks.astype(np.int16))


def as_counters(counts: LayerCounts, rows: list[tuple[int, ...]], layer: int) -> tuple[Counter[Any], Counter[Any]]:
    span = slice(counts.start_L[layer], counts.start_L[layer + 1])
    keys = [(*rows[r], e) for r, e in zip(counts.row_N[span], counts.expert_N[span], strict=True)]
    assert len(set(keys)) == len(keys)
    every = counts.picks_N[span] if len(counts.picks_N) else np.zeros(len(keys), int)
    return +Counter(dict(zip(keys, counts.first_N[span], strict=True))), +Counter(dict(zip(keys, every, strict=True)))


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_shared_tokens_are_counted_as_a_loop_counts_them(seed: int) -> None:
    taken = drawn(seed)
    shared = shared_tokens(taken, LANGUAGE_B, EXPERTS)
    rows = list(zip(shared.ids_M[shared.token_R], shared.bucket_R, strict=True))
    pairs = list(zip(shared.ids_M[shared.pair_token_Q], shared.pair_previous_Q, shared.pair_bucket_Q, strict=True))
    assert len(set(rows)) == len(rows)
    assert rows == sorted(rows, key=lambda r: (shared.ids_M.tolist().index(r[0]), r[1]))
    for layer in range(LAYERS):
        first, every, paired = Counter[Any](), Counter[Any](), Counter[Any]()
        for at, token in enumerate(taken.ids_T):
            bucket, one = taken.bucket_T[at], taken.first_LT[layer, at]
            first[token, bucket, one] += 1
            every.update((token, bucket, pick) for pick in taken.picks_LTK[layer, at])
            if taken.previous_T[at] >= 0:
                paired[token, taken.previous_T[at], bucket, one] += 1
        assert as_counters(shared.counts, rows, layer) == (first, every)
        assert as_counters(shared.pair_counts, pairs, layer)[0] == paired


def test_ids_of_several_languages_come_first_then_the_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = drawn(0)
    often = (taken.bucket_T < 2) & (taken.ids_T >= 6)  # id 0 is the most frequent, and of one language alone
    taken = taken._replace(ids_T=np.where(often, 0, taken.ids_T))
    shared = shared_tokens(taken, LANGUAGE_B, EXPERTS)
    counts = Counter(taken.ids_T.tolist())
    assert counts.most_common(1)[0][0] == 0
    ids = shared.ids_M.tolist()
    both = {i for i in counts if len({LANGUAGE_B[b] for b in taken.bucket_T[taken.ids_T == i]}) > 1}
    assert 0 < len(both) < len(counts)
    assert ids == sorted(counts, key=lambda i: (i not in both, -counts[i], i))
    monkeypatch.setattr(sampling, "MAX_IDS", 3)
    few = shared_tokens(taken, LANGUAGE_B, EXPERTS)
    assert few.ids_M.tolist() == ids[:3]
    assert few.counts.first_N.sum() == LAYERS * sum(counts[i] for i in ids[:3])


def test_only_the_most_frequent_pairs_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_PAIRS", 2)
    taken = drawn(0)
    seen = Counter((t, p) for t, p in zip(taken.ids_T, taken.previous_T, strict=True) if p >= 0)
    shared = shared_tokens(taken, LANGUAGE_B, EXPERTS)
    assert shared.pair_counts.first_N.sum() == LAYERS * sum(n for _, n in seen.most_common(2))


def test_the_ids_that_tell_most_for_an_expert_are_listed_with_their_counts() -> None:
    taken = drawn(3)
    first = taken.first_LT.copy()
    first[1, taken.ids_T == 7] = 4
    top = top_tokens(taken._replace(first_LT=first), LANGUAGE_B, EXPERTS)
    assert top.id_LES.shape == (LAYERS, EXPERTS, sampling.TOP)
    assert top.id_LES[1, 4, 0] == 7
    assert top.count_LES[1, 4, 0] == top.total_LES[1, 4, 0] == (taken.ids_T == 7).sum()
    for layer, expert, slot in np.argwhere(top.id_LES >= 0):
        token = top.id_LES[layer, expert, slot]
        mine = taken.ids_T == token
        assert top.count_LES[layer, expert, slot] == (first[layer, mine] == expert).sum() >= sampling.FLOOR
        assert top.total_LES[layer, expert, slot] == mine.sum()
        spoken = np.bincount(LANGUAGE_B[taken.bucket_T[mine]])
        assert spoken[top.language_LES[layer, expert, slot]] == spoken.max()
    assert (top.count_LES[top.id_LES < 0] == 0).all()


def kept(order: list[int], quota: int) -> list[tuple[str, list[int]]]:
    """Feed documents of 7 tokens in two languages, a few a batch, and return what is kept."""
    sample = Sample(LAYERS, 2, quota)
    for start in range(0, len(order), 4):
        batch = [
            Text(f"d{n}", n % 2, n % 2 * 64, n // 2 * 37 % 23, [n] * 7, [True] * 7) for n in order[start : start + 4]
        ]
        ids = np.concatenate([np.array(t.ids) for t in batch])
        sample.begin(batch, [7] * len(batch), ids)
        for layer in range(LAYERS):
            picks = torch.from_numpy(np.stack([ids + layer, ids + 1 + layer], axis=1))
            sample.see(layer, picks[:, 0], Call(picks, picks.float(), None))
        sample.end()
    return [(k.name, k.picks_LTK[:, :, 0].sum(1).tolist()) for k in sample.documents()]


@given(st.permutations(range(40)), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_depends_on_the_hash_alone_and_translations_stay_together(order: list[int], quota: int) -> None:
    found = kept(order, quota)
    assert found == kept(list(range(40)), quota)
    assert all(total == [7 * int(n[1:]), 7 * (int(n[1:]) + 1)] for n, total in found)
    wanted = min(-(-quota // 7), 20)
    groups = [{int(n[1:]) // 2 for n, _ in found if int(n[1:]) % 2 == language} for language in (0, 1)]
    assert groups[0] == groups[1] == set(sorted(range(20), key=lambda g: g * 37 % 23)[:wanted])


def test_without_a_quota_nothing_is_kept_and_the_tables_are_empty() -> None:
    assert kept(list(range(8)), 0) == []
    taken = Sample(LAYERS, 2, 0).taken(np.array([0]))
    shared = shared_tokens(taken, LANGUAGE_B, EXPERTS)
    assert shared.ids_M.size == shared.counts.first_N.size == shared.pair_token_Q.size == 0
    assert shared.counts.start_L.tolist() == [0] * (LAYERS + 1)
    assert (top_tokens(taken, LANGUAGE_B, EXPERTS).id_LES == -1).all()


def test_a_token_knows_its_predecessor_in_its_own_document_and_its_bucket_among_those_with_text() -> None:
    sample = Sample(1, 2, 99)
    batch = [Text("b", 1, 70, 2, [7, 8, 9], [True] * 3), Text("a", 0, 3, 1, [4, 5], [True] * 2)]
    sample.begin(batch, [3, 2], np.array([7, 8, 9, 4, 5]))
    picks = torch.arange(5)[:, None]
    sample.see(0, picks[:, 0], Call(picks, picks.float(), None))
    sample.end()
    taken = sample.taken(np.array([3, 64, 70]))
    assert taken.ids_T.tolist() == [4, 5, 7, 8, 9]
    assert taken.previous_T.tolist() == [-1, 4, -1, 7, 8]
    assert taken.bucket_T.tolist() == [0, 0, 2, 2, 2]
    assert taken.first_LT.tolist() == [[3, 4, 0, 1, 2]]
