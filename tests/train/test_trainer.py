"""The training loss: packed documents count as if each stood alone, and every family has its expert."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from polyclinic.corpus.pack.pack import IGNORED
from polyclinic.moe import attach as routed
from polyclinic.moe.checkpoint import load_model
from polyclinic.recipe import TrainingSection
from polyclinic.train.metrics import LanguageLoss
from polyclinic.train.packs import Packs, collate
from polyclinic.train.trainer import StrictTrainer

KINDS = pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
Make = Callable[..., StrictTrainer]


@pytest.fixture
def make(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> Make:
    """Return a maker of trainers on the small packs, with family routing where asked."""

    def trainer(kind: str = "qwen3", hybrid: bool = False) -> StrictTrainer:
        packs, model = Packs(packed), load_model(mixtures[kind])
        if hybrid:
            routed.attach(model)
        arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, weight_decay=0.1, max_steps=1)
        return StrictTrainer(
            packs, TrainingSection(steps=1), LanguageLoss(packs.languages), model=model, args=arguments
        )

    return trainer


def batch_of(packed: Path, size: int = 4) -> dict[str, torch.Tensor]:
    packs = Packs(packed)
    return collate([packs[i] for i in range(size)])


def documents_of(batch: dict[str, torch.Tensor]) -> list[tuple[str, list[int], list[int]]]:
    """Cut packs at restarting positions: language id, tokens and labels of each piece that is not padding."""
    out = []
    for row in range(len(batch["input_ids"])):
        columns = {name: batch[name][row].tolist() for name in batch}
        starts = [i for i, position in enumerate(columns["position_ids"]) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(columns["input_ids"])], strict=True):
            if columns["language_ids"][start] >= 0:
                language = columns["language_ids"][start]
                out.append((language, columns["input_ids"][start:end], columns["labels"][start:end]))
    return out


def alone(model: Any, documents: list[tuple[str, list[int], list[int]]]) -> dict[Any, list[float]]:
    """Return, per language id, the losses of the labelled tokens when each document is all there is."""
    out: dict[Any, list[float]] = {}
    for language, tokens, labels in documents:
        logits = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        losses = [-logits[i - 1, labels[i]].item() for i in range(1, len(tokens)) if labels[i] != IGNORED]
        out.setdefault(language, []).extend(losses)
    return out


@KINDS
@torch.no_grad()
def test_packed_documents_cost_what_they_cost_alone(make: Make, packed: Path, kind: str) -> None:
    trainer, batch = make(kind), batch_of(packed)
    expected = [loss for losses in alone(trainer.model, documents_of(batch)).values() for loss in losses]
    assert len(documents_of(batch)) > len(batch["input_ids"])
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(np.mean(expected), rel=1e-5)


@torch.no_grad()
def test_each_language_has_the_loss_of_its_own_tokens(make: Make, packed: Path) -> None:
    trainer, batch = make(), batch_of(packed)
    expected = alone(trainer.model, documents_of(batch))
    trainer.compute_loss(trainer.model, batch)
    taken = trainer._language_loss.take()
    languages = Packs(packed).languages
    assert set(taken) == {languages[i] for i in expected}
    for i, losses in expected.items():
        assert taken[languages[i]]["tokens"] == len(losses)
        assert taken[languages[i]]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@torch.no_grad()
def test_language_losses_weighted_by_tokens_add_up_to_the_batch_loss(make: Make, packed: Path) -> None:
    trainer = make()
    loss = trainer.compute_loss(trainer.model, batch_of(packed)).item()
    taken = trainer._language_loss.take().values()
    tokens = sum(t["tokens"] for t in taken)
    assert loss == pytest.approx(sum(t["loss"] * t["tokens"] for t in taken) / tokens, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(0, 20), st.integers(-1, 2)), max_size=12), max_size=4))
def test_sums_of_losses_are_exact_over_batches_and_start_again(batches: list[list[tuple[float, int]]]) -> None:
    sums = LanguageLoss(["a", "b", "c"])
    for batch in batches:
        losses = torch.tensor([loss for loss, _ in batch], dtype=torch.float64)
        ids = torch.tensor([i for _, i in batch], dtype=torch.long)
        sums.add(losses, ids, ids >= 0)
    taken = sums.take()
    for i, code in enumerate("abc"):
        own = [loss for batch in batches for loss, language in batch if language == i]
        assert (code in taken) == bool(own)
        if own:
            assert taken[code] == {"loss": pytest.approx(np.mean(own)), "tokens": len(own)}
    assert sums.take() == {}


@torch.no_grad()
def test_a_batch_without_labels_costs_nothing(make: Make, packed: Path) -> None:
    trainer, batch = make(), batch_of(packed)
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    assert trainer.compute_loss(trainer.model, batch).item() == 0.0


@KINDS
def test_norms_and_biases_are_not_decayed_and_all_else_is(make: Make, kind: str) -> None:
    trainer = make(kind)
    trainer.create_optimizer()
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    for name, value in decay.items():
        free = "norm" in name or name.endswith(".bias")
        assert value == (0.0 if free else 0.1), name
    assert {"model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.gate.weight"} <= set(decay)


def picks_of(trainer: StrictTrainer, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the picks (packs, tokens, k) of each sparse layer in one training forward and backward."""
    seen: list[torch.Tensor] = []
    layers = routed.sparse_layers(trainer.model).values()
    hooks = [x.mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[1])) for x in layers]
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    for hook in hooks:
        hook.remove()
    return [picks.reshape(*batch["input_ids"].shape, -1) for picks in seen]


def test_hybrid_training_reaches_every_family_expert(make: Make, packed: Path) -> None:
    trainer, batch = make(hybrid=True), batch_of(packed)
    for family in range(trainer.model.config.num_experts):
        batch["family_ids"] = torch.full_like(batch["family_ids"], family)
        for picks in picks_of(trainer, batch):
            assert (picks == family).any(-1).all()
        for layer in routed.sparse_layers(trainer.model).values():
            experts = layer.mlp.experts
            assert all(weight.grad[family].abs().max() > 0 for weight in (experts.gate_up_proj, experts.down_proj))


def test_each_token_of_a_pack_gets_the_expert_of_its_own_family(make: Make, packed: Path) -> None:
    batch = batch_of(packed)
    known = batch["family_ids"] >= 0
    assert len(batch["family_ids"][known].unique()) >= 3
    free = picks_of(make(), batch)
    for picks, without in zip(picks_of(make(hybrid=True), batch), free, strict=True):
        assert (picks == batch["family_ids"][..., None]).any(-1)[known].all()
        assert not (without == batch["family_ids"][..., None]).any(-1)[known].all()


@torch.no_grad()
def test_an_unattached_model_is_never_told_the_family(make: Make, packed: Path) -> None:
    trainer, batch = make(), batch_of(packed)
    free = trainer.compute_loss(trainer.model, batch)
    batch["family_ids"] = torch.zeros_like(batch["family_ids"])
    assert trainer.compute_loss(trainer.model, batch).equal(free)


@torch.no_grad()
def test_the_loss_is_taken_in_full_precision(make: Make, packed: Path) -> None:
    trainer, batch = make(), batch_of(packed)
    trainer.model.to(torch.bfloat16)
    loss = trainer.compute_loss(trainer.model, batch)
    logits = trainer.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    assert logits.dtype is torch.bfloat16
    assert loss.dtype is torch.float32
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
