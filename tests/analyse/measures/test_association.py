"""The engine: its estimate is the definition, its null keeps groups, its interval covers what it should."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from polyclinic.analyse.measures.association import Rows, associate, interval, sized_strata

MANY = settings(max_examples=15, deadline=None)


def rows(seed: int, num_rows: int = 30, groups: int = 3) -> Rows:
    """Return rows of chance counts, two cells in each group, two layers."""
    generator = np.random.default_rng(seed)
    cell = np.concatenate([np.arange(2 * groups), generator.integers(2 * groups, size=num_rows)])
    group = np.arange(2 * groups) % groups
    counts = generator.integers(0, 9, (len(cell), 2, 4)).astype(np.float32)
    counts[:, 1] = counts[:, 0][:, generator.permutation(4)]  # all layers hold the same tokens
    number = generator.integers(5, size=len(cell))
    return Rows(cell, group, group[cell], np.arange(len(cell)), number, counts)


@MANY
@given(st.integers(0, 10_000))
def test_the_estimate_is_the_mean_over_groups_of_a_known_implementation(seed: int) -> None:
    made = rows(seed)
    found = associate(made, 1, 2, 0)
    tokens = made.counts_RLE[:, 0].sum()
    for layer in range(2):
        information = most = 0.0
        for group in range(3):
            inside = [(c, e, n) for c, row in zip(made.cell_R, made.counts_RLE[:, layer], strict=True)
                      if made.group_C[c] == group for e, n in enumerate(row)]  # fmt: skip
            cells, experts = (np.repeat([i[k] for i in inside], [int(i[2]) for i in inside]) for k in (0, 1))
            if len(cells):
                information += len(cells) / tokens * mutual_info_score(cells, experts)
                most += len(cells) / tokens * entropy(np.bincount(experts))
        assert found.estimate_L[layer] == pytest.approx(information, abs=1e-4)
        assert found.most_L[layer] == pytest.approx(most, abs=1e-4)


def test_the_null_keeps_groups_and_breaks_what_the_label_adds() -> None:
    counts = np.zeros((64, 1, 4), dtype=np.float32)
    group = np.repeat([0, 1], 32)
    cell = 2 * group + np.tile([0, 1], 32)
    counts[np.arange(64), 0, cell] = 10  # the cell decides; the group alone knows half
    found = associate(Rows(cell, np.array([0, 0, 1, 1]), group, np.arange(64), np.arange(64) % 8, counts), 200, 2, 0)
    assert found.estimate_L[0] == pytest.approx(np.log(2), abs=1e-5)
    assert found.most_L[0] == pytest.approx(np.log(2), abs=1e-5)
    assert found.null_SL.mean() < 0.1
    assert found.p_value_L[0] == pytest.approx(1 / 201)


def test_rows_of_one_unit_move_together() -> None:
    group, unit = np.repeat(np.arange(20), 8), np.tile(np.arange(8), 20)
    cell = 2 * group + unit % 2
    counts = np.zeros((160, 1, 2), dtype=np.float32)
    counts[np.arange(160), 0, (unit >= 4).astype(int)] = 5  # a document has its expert, whatever the id
    together = associate(Rows(cell, np.arange(40) // 2, group, unit, unit, counts), 200, 2, 0).null_SL
    apart = associate(Rows(cell, np.arange(40) // 2, group, np.arange(160), unit, counts), 200, 2, 0).null_SL
    assert together.std() > 3 * apart.std()
    assert together.mean() == pytest.approx(apart.mean(), rel=0.3)


@pytest.mark.parametrize("num_rows", [1, 7, 100, 1000, 5000])
@pytest.mark.parametrize("groups", [1, 4])
def test_strata_keep_to_their_group_and_order_rows_by_size(num_rows: int, groups: int) -> None:
    size, group = np.random.default_rng(1).integers(1, 50, num_rows), np.arange(num_rows) % groups
    strata = sized_strata(group, size, np.random.default_rng(0))
    for one in np.unique(strata):
        assert len(np.unique(group[strata == one])) == 1
    for of in range(groups):
        ends = [(size[(strata == s)].min(), size[strata == s].max()) for s in np.unique(strata[group == of])]
        assert all(a[1] <= b[0] for a, b in pairwise(ends))
    rows = num_rows // groups
    assert len(np.unique(strata)) == len(np.unique(group)) * min(8, max(1, rows // 64))


def test_the_interval_of_the_score_has_the_width_of_repeated_worlds() -> None:
    def world(seed: int) -> Rows:
        generator = np.random.default_rng(seed)
        cell, number = np.repeat([0, 1], 24), np.tile(np.arange(24), 2)
        share = 0.5 + 0.3 * (cell * 2 - 1) + generator.normal(0, 0.1, 48)
        ones = generator.binomial(60, np.clip(share, 0, 1))
        counts = np.stack([ones, 60 - ones], 1)[:, None].astype(np.float32)
        return Rows(cell, np.zeros(2, dtype=int), np.zeros(48, dtype=int), np.arange(48), number, counts)

    repeated = [associate(world(seed), 30, 2, 0).score_L[0] for seed in range(40)]
    spread = [associate(world(seed), 30, 200, 0).replicate_QL[:, 0].std() for seed in range(3)]
    assert np.mean(spread) == pytest.approx(np.std(repeated), rel=0.4)
    one = associate(world(0), 30, 200, 0)
    low, high = interval(one.replicate_QL[:, 0], one.numbers)  # type: ignore[misc]
    assert low < one.score_L[0] < high
    assert one.replicate_QL[:, 0].mean() == pytest.approx(one.score_L[0], abs=0.1 * (high - low))


def test_one_bucket_gives_no_interval() -> None:
    assert interval(np.array([0.1, 0.2]), 1) is None
    assert interval(np.linspace(0, 1, 1001), 2) == pytest.approx((0.025, 0.975))


def test_replicates_stand_about_the_score_though_buckets_drawn_twice_make_them_higher() -> None:
    counts = np.random.default_rng(0).multinomial(6, [0.25] * 4, size=(64, 1)).astype(np.float32)
    cell, number = np.repeat([0, 1, 2, 3], 16), np.tile(np.arange(16), 4)
    found = associate(Rows(cell, np.zeros(4, dtype=int), 0 * cell, np.arange(64), number, counts), 50, 400, 0)
    drawn = found.replicate_QL[:, 0]
    assert drawn.mean() == pytest.approx(found.score_L[0], abs=0.2 * drawn.std())
