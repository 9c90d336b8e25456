"""Centroid rows point at what the families look like to the dense parent, measured on text alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upcycle.conftest import PHRASES, refusal, tensors_of
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from polyclinic.errors import CheckpointError, DataError
from polyclinic.families import Preset, load_preset
from polyclinic.moe.blueprint import Mixture
from polyclinic.moe.checkpoint import load_model
from polyclinic.upcycle.router_init import _centroid_rows, centroids

Build = Callable[..., Any]
Texts = Mapping[str, Sequence[str]]
# Texts of unequal length and number; en and hi share a family, yo is listed by none and placed by lineage.
TEXTS: dict[str, list[str]] = {
    "zh": [PHRASES[1], "发烧"],
    "en": [PHRASES[0], "cough", "a fever, a cough and some more words so that this one is long"],
    "hi": ["बुखार"],
    "sw": [PHRASES[2]],
    "yo": ["iba ati ikọ", "iba"],
}
APOLLO = load_preset("apollo")
SEEN = sorted({APOLLO.expert_of(code) for code in TEXTS})
MIXTURE = Mixture((1, 2), APOLLO.num_experts)


def name_of(layer: int) -> str:
    return f"model.layers.{layer}.mlp.gate.weight"


@torch.no_grad()
def states(dense: Path, layer: int, texts: Texts, preset: Preset) -> dict[int, np.ndarray]:
    """Return what enters a layer's FFN, family -> (tokens, hidden): one text at a time, nothing padded."""
    model = load_model(dense).eval()
    tokenizer = Tokenizer.from_file(str(dense / "tokenizer.json"))
    caught: list[Tensor] = []
    norm = model.model.layers[layer].post_attention_layernorm
    norm.register_forward_hook(lambda *args: caught.append(args[2][0]))
    found: dict[int, list[np.ndarray]] = {}
    for code, some in texts.items():
        for text in some:
            model(torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids]))
            found.setdefault(preset.expert_of(code), []).append(caught.pop().double().numpy())
    return {family: np.concatenate(rows) for family, rows in found.items()}


def expected_rows(of_family: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return family -> row, by the words of the module's docstring."""
    means = {family: rows.mean(axis=0) for family, rows in of_family.items()}
    centre = sum(means.values()) / len(means)
    common = centre / np.sqrt((centre**2).sum())
    rows = {}
    for family, mean in means.items():
        away = mean - centre
        away = away - (away * common).sum() * common
        rows[family] = away / np.sqrt((away**2).sum())
    logits = [token @ row for tokens in of_family.values() for token in tokens for row in rows.values()]
    return {family: row / np.std(logits, ddof=1) for family, row in rows.items()}


def rows_of(dense: Path, texts: Texts = TEXTS, **changes: Any) -> dict[str, Tensor]:
    return centroids(dense, Mixture(**{**vars(MIXTURE), **changes}), APOLLO, texts)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], rows: Sequence[int] = range(7)) -> bool:
    picked = list(rows)
    return set(one) == set(other) and all(torch.allclose(one[n][picked], other[n][picked], atol=1e-5) for n in one)


# What the rows are


@pytest.mark.parametrize(("kind", "changes"), [("qwen3", {}), ("phi3", {}), ("mistral", {"sliding_window": 3})])
def test_rows_are_the_family_means_apart_from_what_all_share(
    built_with: Build, dense_of: Build, kind: str, changes: dict[str, Any]
) -> None:
    made = built_with(parent=dense_of(kind, **changes), router_init="centroid", texts=TEXTS)
    tensors = tensors_of(made.out)
    for layer in (1, 2):
        of_family = states(made.dense, layer, TEXTS, APOLLO)
        assert sorted(of_family) == SEEN
        for family, row in expected_rows(of_family).items():
            got = tensors[name_of(layer)][family].double().numpy()
            assert np.abs(got - row).max() <= 1e-5 * np.abs(row).max()
    assert made.facts["equal_by_design"]
    assert made.facts["difference"] <= 2e-6 * made.facts["largest_logit"]


def test_only_the_sparse_layers_get_rows_each_its_own(dense: Path) -> None:
    found = rows_of(dense, sparse_layers=(0, 2))
    assert set(found) == {name_of(0), name_of(2)}
    assert found[name_of(0)].shape == (7, 32)
    assert not torch.allclose(found[name_of(0)], found[name_of(2)], atol=1e-2)
    whole = rows_of(dense, sparse_layers=(0, 1, 2))
    assert same(found, {name: whole[name] for name in found}, SEEN)


def test_the_mean_state_of_each_family_is_sent_to_its_expert(dense: Path) -> None:
    for name, rows in rows_of(dense).items():
        for family, seen in states(dense, int(name.split(".")[2]), TEXTS, APOLLO).items():
            assert int((rows.double() @ torch.tensor(seen.mean(axis=0))).argmax()) == family


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_the_states_rows_prefer_their_family_and_no_expert_is_preferred_by_all(data: st.DataObject) -> None:
    num_experts, width = data.draw(st.integers(2, 7)), data.draw(st.integers(8, 24))
    present = sorted(data.draw(st.sets(st.integers(0, num_experts - 1), min_size=2)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    shared = data.draw(st.sampled_from([0.0, 1.0, 30.0])) * torch.randn(width, generator=generator)
    states_TH, family_T = [], []
    for family in present:
        tokens = data.draw(st.integers(1, 9))
        own = torch.randn(width, generator=generator)
        states_TH.append(shared + own + 0.3 * torch.randn(tokens, width, generator=generator))
        family_T += [family] * tokens
    rows = _centroid_rows(torch.cat(states_TH), torch.tensor(family_T), num_experts, generator).double()
    means = torch.stack([s.double().mean(0) for s in states_TH])
    scores = means @ rows.T
    tolerance = 1e-5 * scores.abs().max() + 1e-5 * means.norm(dim=1).max() * rows.norm(dim=1).max()
    for family, score in zip(present, scores, strict=True):
        assert score[family] >= score.max() - tolerance
    assert (means.mean(0) @ rows.T).abs().max() <= tolerance  # of rows without text too
    lengths = rows.norm(dim=1)
    assert torch.allclose(lengths, lengths[:1].expand_as(lengths), rtol=1e-4)
    logits = torch.cat(states_TH).double() @ rows[present].T
    assert logits.std().item() == pytest.approx(1.0, rel=1e-3)


def test_families_without_text_get_rows_by_seed_and_the_others_do_not_change(dense: Path) -> None:
    first, again, other = rows_of(dense), rows_of(dense), rows_of(dense, seed=1)
    without = [e for e in range(7) if e not in SEEN]
    assert without
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert same(first, other, SEEN)
    for name, rows in first.items():
        assert rows.isfinite().all()
        assert not torch.allclose(rows[without], other[name][without], atol=1e-2)
        pairs = [(a, b) for a in without for b in without if a < b]
        assert not any(torch.allclose(rows[a], rows[b], atol=1e-2) for a, b in pairs)
    assert not torch.allclose(first[name_of(1)][without], first[name_of(2)][without], atol=1e-2)


# What is measured


def change_tokenizer(dense: Path, change: Callable[[Tokenizer], object]) -> None:
    path = str(dense / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    change(tokenizer)
    tokenizer.save(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.enable_padding(length=40, pad_id=1, pad_token="<pad>"),  # noqa: S106
        lambda t: t.enable_truncation(max_length=2),
        lambda t: setattr(t, "post_processor", TemplateProcessing("<pad> $A <pad>", special_tokens=[("<pad>", 0)])),
    ],
    ids=["padding", "truncation", "special tokens"],
)
def test_what_a_tokenizer_adds_or_takes_is_no_text(dense: Path, change: Callable[[Tokenizer], object]) -> None:
    before = rows_of(dense)
    plain = json.loads((dense / "tokenizer.json").read_text("utf-8"))
    change_tokenizer(dense, change)
    assert json.loads((dense / "tokenizer.json").read_text("utf-8")) != plain
    assert same(before, rows_of(dense))


def test_four_texts_of_a_language_are_read_and_empty_ones_do_not_count(dense: Path) -> None:
    four = TEXTS | {"en": ["fever", "cough", "and", "fever and"]}
    before = rows_of(dense, four)
    assert same(before, rows_of(dense, four | {"en": [*four["en"], "a fifth"]}))
    assert same(before, rows_of(dense, four | {"en": ["", "", "", "", "", *four["en"]]}))
    assert not same(before, rows_of(dense, four | {"en": four["en"][:3]}), SEEN)


def test_sixty_four_tokens_of_a_text_are_read(dense: Path) -> None:
    tokenizer = Tokenizer.from_file(str(dense / "tokenizer.json"))
    text, other = "x " * 32, "x " * 31 + "xy"  # which differ in their last token
    ids = [tokenizer.encode(words).ids for words in (text, other)]
    assert len(ids[0]) == len(ids[1]) == 64
    assert ids[0][:63] == ids[1][:63]
    before = rows_of(dense, TEXTS | {"en": [text]})
    assert same(before, rows_of(dense, TEXTS | {"en": [text + "cough " * 50]}))
    assert not same(before, rows_of(dense, TEXTS | {"en": [other]}), SEEN)


def test_the_order_of_languages_and_those_without_text_do_not_move_a_bit(dense: Path) -> None:
    turned = dict(reversed(TEXTS.items())) | {"ar": [], "th": [""]}
    one, other = rows_of(dense), rows_of(dense, turned)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_saying_the_same_four_times_turns_no_row(dense: Path) -> None:
    """Families count alike, however much text they have: only the common length of the rows changes."""
    once = {"zh": ["发烧"], "sw": ["homa"], "en": ["cough"]}
    often = once | {"en": ["cough"] * 4}
    for name, rows in rows_of(dense, once).items():
        more = rows_of(dense, often)[name]
        present = [APOLLO.expert_of(code) for code in once]
        cosines = torch.nn.functional.cosine_similarity(rows[present], more[present])
        assert torch.allclose(cosines, torch.ones(3), atol=1e-5)
        assert not torch.allclose(rows[present], more[present], atol=1e-4)


# What it raises


@pytest.mark.parametrize(
    "texts", [None, {}, {"en": ["fever"], "hi": ["बुखार"]}, {"en": ["fever"], "zh": [""]}, {"en": [], "zh": ["发烧"]}]
)
def test_texts_of_fewer_than_two_families_are_refused_before_anything_is_written(
    built_with: Build, tmp_path: Path, texts: Texts | None
) -> None:
    said = refusal(lambda: built_with(router_init="centroid", texts=texts), DataError, 3)
    assert "fewer than two families" in said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_parent_without_a_fast_tokenizer_is_refused(built_with: Build, dense: Path, tmp_path: Path) -> None:
    (dense / "tokenizer.json").unlink()
    said = refusal(lambda: built_with(router_init="centroid", texts=TEXTS), CheckpointError, 4)
    assert "tokenizer.json" in said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_language_nobody_knows_is_refused(dense: Path) -> None:
    assert "xx" in refusal(lambda: rows_of(dense, TEXTS | {"xx": ["word"]}), DataError, 3)


def test_rows_are_written_in_the_precision_of_the_parent(built_with: Build, dense_of: Build) -> None:
    parent = dense_of("qwen3", dtype="bf16")
    made = built_with(parent=parent, router_init="centroid", texts=TEXTS)
    for name, rows in rows_of(parent).items():
        written = tensors_of(made.out)[name]
        assert written.dtype == torch.bfloat16
        assert torch.equal(written, rows.to(torch.bfloat16))
