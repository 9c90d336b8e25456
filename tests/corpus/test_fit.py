"""Best fit: nothing is lost, what fits is not cut, and no pack is fuller or emptier than by the plain rule."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.corpus.pack import fit
from polyclinic.corpus.pack.fit import How, Pieces, best_fit, in_order, planner

FEW = settings(max_examples=80, deadline=None)
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=40)
rooms = st.integers(1, 30)
windows = st.integers(1, 200)


def plan(
    how: How, lengths: list[int], room: int, window: int = 1 << 20, seed: int = 0
) -> tuple[list[Pieces], list[int]]:
    """Return the plan of a shuffled stream, and the stream."""
    stream = np.random.default_rng(seed).permutation(len(lengths))
    return list(planner(how)(stream, np.array(lengths, dtype=np.int32), room, window)), stream.tolist()


@FEW
@given(sizes, rooms, windows, st.sampled_from(["best_fit", "in_order"]))
def test_every_token_stands_in_one_place_and_no_pack_is_overfull(
    lengths: list[int], room: int, window: int, how: How
) -> None:
    found, _ = plan(how, lengths, room, window)
    seen: Counter[tuple[int, int]] = Counter()
    for pieces in found:
        assert pieces.pack.tolist() == sorted(pieces.pack.tolist())
        filled = np.bincount(pieces.pack, weights=pieces.length)
        assert (filled > 0).all()
        assert (filled <= room).all()
        for document, start, length, _ in zip(*pieces, strict=True):
            seen.update((int(document), int(start) + i) for i in range(int(length)))
    assert seen == Counter((document, i) for document, length in enumerate(lengths) for i in range(length))


def by_the_rule(lengths: list[int], room: int) -> list[int]:
    """Return the tokens in each pack: longest first, each into the fullest pack that takes it."""
    packs: list[int] = []
    rest = sorted((n for size in lengths for n in [room] * (size // room) + [size % room] if n), reverse=True)
    for length in rest:
        takes = [i for i, filled in enumerate(packs) if filled + length <= room]
        if takes:
            packs[max(takes, key=lambda i: packs[i])] += length
        else:
            packs.append(length)
    return sorted(packs)


@FEW
@given(sizes, rooms)
def test_best_fit_fills_packs_as_the_plain_rule_does_and_cuts_only_what_is_longer(
    lengths: list[int], room: int
) -> None:
    found, _ = plan("best_fit", lengths, room)
    filled = [int(n) for pieces in found for n in np.bincount(pieces.pack, weights=pieces.length)]
    assert sorted(filled) == by_the_rule(lengths, room)
    for pieces in found:
        for document, start, length, _ in zip(*pieces, strict=True):
            assert start % room == 0
            assert length == min(room, lengths[document] - start)


@FEW
@given(sizes, rooms, windows)
def test_in_order_lays_the_stream_end_to_end_whatever_the_window(lengths: list[int], room: int, window: int) -> None:
    found, stream = plan("in_order", lengths, room, window)
    laid = [(int(d), int(s) + i) for p in found for d, s, n, _ in zip(*p, strict=True) for i in range(n)]
    assert laid == [(document, i) for document in stream for i in range(lengths[document])]
    filled = [int(n) for pieces in found for n in np.bincount(pieces.pack, weights=pieces.length)]
    assert all(n == room for n in filled[:-1])


def test_a_window_is_packed_without_the_next() -> None:
    lengths = np.random.default_rng(4).integers(1, 9, 300).astype(np.int32)
    stream = np.arange(300)
    found = list(best_fit(stream, lengths, 10, window=100))
    parts = [sorted(set(pieces.document.tolist())) for pieces in found]
    assert [d for part in parts for d in part] == list(range(300))
    assert all(lengths[part].sum() <= 100 for part in parts)
    assert len(parts) > 10


def test_a_window_ends_before_the_document_that_would_make_it_too_long() -> None:
    found = list(best_fit(np.arange(5), np.full(5, 5, dtype=np.int32), 10, window=10))
    assert [pieces.document.tolist() for pieces in found] == [[0, 1], [2, 3], [4]]


def test_packs_follow_each_other_as_their_longest_pieces_do_in_the_stream() -> None:
    lengths = np.array([3, 9, 2, 8, 10, 7], dtype=np.int32)
    (pieces,) = best_fit(np.array([5, 4, 3, 2, 1, 0]), lengths, 10)
    packs: dict[int, list[int]] = {}
    for document, _, _, pack in zip(*pieces, strict=True):
        packs.setdefault(int(pack), []).append(int(document))
    assert packs == {0: [5, 0], 1: [4], 2: [3, 2], 3: [1]}


@pytest.mark.parametrize("work", [best_fit, in_order])
def test_a_stream_without_tokens_gives_no_packs(work: object) -> None:
    for lengths in ([], [0, 0]):
        numbers = np.array(lengths, dtype=np.int32)
        found = work(np.arange(len(lengths)), numbers, 8, 100)  # type: ignore[operator]
        assert sum(len(p.pack) for p in found) == 0


@FEW
@given(sizes, windows, st.integers(1, 7))
def test_windows_are_cut_where_running_sums_over_the_whole_stream_cut_them(
    lengths: list[int], window: int, block: int
) -> None:
    stream = np.random.default_rng(1).permutation(len(lengths))
    expected: list[list[int]] = []
    tokens = 0
    for document in stream.tolist():
        if not expected or (tokens + lengths[document] > window and expected[-1]):
            expected.append([])
            tokens = 0
        expected[-1].append(document)
        tokens += lengths[document]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "BLOCK", block)
        found = [part.tolist() for part in fit._windows(stream, np.array(lengths, dtype=np.int32), window)]
    assert found == expected
