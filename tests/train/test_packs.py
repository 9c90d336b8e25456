"""Packs in an order that a resumed run can find again without any state."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import small
from polyclinic.corpus.pack.shards import SHARD, STORED
from polyclinic.corpus.tables import PACKS
from polyclinic.errors import DataError
from polyclinic.train.packs import Packs, PackSampler, collate

counts = st.integers(1, 30)
seeds = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=50, deadline=None)


def written(folder: Path, sizes: tuple[int, ...], length: int = 4) -> Path:
    """Write shards whose numbers say where they stand: row r holds r * length, r * length + 1, ..."""
    (folder / "packs.json").write_text(
        json.dumps({"languages": ["en"], "pack_tokens": length, "expert_of": {"en": 0}}), "utf-8"
    )
    row = 0
    for shard, size in enumerate(sizes):
        numbers = [list(range((row + i) * length, (row + i + 1) * length)) for i in range(size)]
        whole = {"learned": [1] * length, "lengths": [length], "languages": [0], "families": [0]}
        rows = [{"input_ids": [n % 100 for n in values], **whole} for values in numbers]
        with pa.ipc.new_file(str(folder / SHARD.format(shard)), STORED) as file:
            file.write_batch(pa.RecordBatch.from_pylist(rows, schema=STORED))
        row += size
    return folder


@FEW
@given(counts, st.integers(1, 4), seeds)
def test_each_pass_draws_every_pack_once(num_packs: int, passes: int, seed: int) -> None:
    drawn = list(PackSampler(num_packs, passes * num_packs, seed))
    for start in range(0, len(drawn), num_packs):
        assert sorted(drawn[start : start + num_packs]) == list(range(num_packs))


@FEW
@given(counts, st.integers(1, 90), st.data())
def test_a_shorter_run_draws_the_beginning_of_a_longer_one(num_packs: int, total: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, total))
    whole = list(PackSampler(num_packs, total, seed=5))
    assert list(PackSampler(num_packs, part, seed=5)) == whole[:part]
    assert len(whole) == len(PackSampler(num_packs, total, seed=5)) == total


@FEW
@given(st.integers(12, 40), seeds, seeds)
def test_seeds_and_passes_have_orders_of_their_own(num_packs: int, seed: int, other: int) -> None:
    first = list(PackSampler(num_packs, 2 * num_packs, seed))
    assert first[:num_packs] != first[num_packs:]
    assert (seed == other) == (first == list(PackSampler(num_packs, 2 * num_packs, other)))


def test_skipping_batches_is_continuing(packed: Path) -> None:
    packs = Packs(packed)

    def loader() -> DataLoader:
        return DataLoader(packs, batch_size=3, sampler=PackSampler(len(packs), 30, 1), collate_fn=collate)

    whole, rest = list(loader()), list(skip_first_batches(loader(), 4))
    assert len(rest) == len(whole) - 4
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(a[name].equal(b[name]) for name in PACKS.names)


def test_packs_are_the_rows_of_the_files(packed: Path) -> None:
    packs = Packs(packed)
    rows = [
        row for path in sorted(packed.glob("packs-*")) for row in pa.ipc.open_file(str(path)).read_all().to_pylist()
    ]
    assert len(packs) == len(rows) > 1
    for index, row in enumerate(rows):
        learned = [t if yes else -100 for t, yes in zip(row["input_ids"], row["learned"], strict=True)]
        of_pieces = zip(row["lengths"], row["languages"], row["families"], strict=True)
        spread = [(i, language, family) for n, language, family in of_pieces for i in range(n)]
        columns = (row["input_ids"], learned, *map(list, zip(*spread, strict=True)))
        expected = {"pack": index, **dict(zip(PACKS.names, columns, strict=True))}
        assert {name: column.tolist() for name, column in packs[index].items()} == expected


def test_packs_that_lie_in_an_order_are_read_in_it_and_go_on_in_it(packed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "packs"))
    facts = json.loads((folder / "packs.json").read_text())
    (folder / "packs.json").write_text(json.dumps(facts | {"ordered": True}))
    assert (Packs(packed).ordered, Packs(folder).ordered) == (False, True)
    assert list(PackSampler(4, 10, seed=3, ordered=True)) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_a_shard_cut_short_is_refused_in_one_line(packed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "packs"))
    path = folder / SHARD.format(0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is no whole Arrow file"):
        Packs(folder)


def test_the_records_of_a_pack_are_the_documents_whose_tokens_stand_in_it(packed: Path) -> None:
    packs = Packs(packed)
    every = {d.id: d for d in small.documents(6)}
    codes = packs.languages
    found = [packs.records([i]) for i in range(len(packs))]
    assert set().union(*found) == set(every)
    for i, records in enumerate(found):
        languages = {codes[j] for j in set(packs[i]["language_ids"].tolist()) if j >= 0}
        assert {every[r].language for r in records} == languages
        begun = int((packs[i]["position_ids"][packs[i]["language_ids"] >= 0] == 0).sum())
        assert begun == len(records)
    assert packs.records([0, 1]) == list(dict.fromkeys(found[0] + found[1]))


def test_shards_follow_each_other_by_name(tmp_path: Path) -> None:
    packs = Packs(written(tmp_path, (3, 1, 2)))
    assert [int(packs[i]["input_ids"][0]) for i in range(len(packs))] == [0, 4, 8, 12, 16, 20]


def test_a_folder_without_packs_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no packs"):
        Packs(written(tmp_path, (0,)))


def test_a_batch_is_long_tensors_in_the_order_of_its_rows(packed: Path) -> None:
    packs = Packs(packed)
    batch = collate([packs[2], packs[0]])
    assert {t.dtype for t in batch.values()} == {torch.int64}
    for name in PACKS.names:
        assert np.array_equal(batch[name].numpy(), np.stack([packs[2][name], packs[0][name]]))
