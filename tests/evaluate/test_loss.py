"""Held-out loss: the model's own loss per token, and bits per byte of exactly the bytes that were guessed."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel

import small
from polyclinic.evaluate.loss import MAX_TOKENS, held_out_loss
from polyclinic.moe.checkpoint import load_model
from polyclinic.prompts import plain_text
from polyclinic.records import Document, Turn


def text(content: str, language: str = "en") -> Document:
    return replace(small.documents(1)[0], language=language, turns=(Turn("text", content),))


def ids_of(checkpoint: Path, document: Document) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    return tokenizer.encode(plain_text(document), add_special_tokens=False)[:MAX_TOKENS]


@cache
def loaded(checkpoint: Path) -> PreTrainedModel:
    return load_model(checkpoint).eval()


@torch.no_grad()
def own_loss(checkpoint: Path, document: Document) -> tuple[float, int]:
    """Return the model's own mean loss on one document, and over how many tokens."""
    tokens = torch.tensor([ids_of(checkpoint, document)])
    return loaded(checkpoint)(input_ids=tokens, labels=tokens).loss.item(), tokens.shape[1] - 1


@pytest.mark.parametrize("name", ["base", "mixture"])
def test_one_document_has_the_loss_the_model_itself_computes(models: dict[str, Path], name: str) -> None:
    for document in small.documents(2):
        loss, tokens = own_loss(models[name], document)
        row = held_out_loss(models[name], [document])[document.language]
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert (row["tokens"], row["documents"]) == (tokens, 1)


def test_documents_of_a_language_are_weighted_by_their_tokens(models: dict[str, Path]) -> None:
    documents = small.documents(5)
    rows = held_out_loss(models["mixture"], documents)
    assert set(rows) == set(small.LANGUAGES)
    for code, row in rows.items():
        alone = [own_loss(models["mixture"], d) for d in documents if d.language == code]
        tokens = sum(n for _, n in alone)
        assert row["tokens"] == tokens
        assert row["loss"] == pytest.approx(sum(loss * n for loss, n in alone) / tokens, rel=1e-5)


@pytest.mark.parametrize("content", ["fever and water", "fever, 発熱 \U0001f321, ไข้"])
def test_bits_per_byte_counts_the_bytes_after_the_first_token(models: dict[str, Path], content: str) -> None:
    document = text(content)
    first = AutoTokenizer.from_pretrained(models["base"]).decode(ids_of(models["base"], document)[:1])
    row = held_out_loss(models["base"], [document])["en"]
    size = len(content.encode()) - len(first.encode())
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * row["tokens"] / math.log(2) / size)


def test_a_character_cut_by_the_first_token_counts_its_remaining_bytes(models: dict[str, Path]) -> None:
    """Decoding the rest would put three bytes of U+FFFD for each byte that is no character."""
    vocabulary = Tokenizer.from_file(str(models["base"] / "tokenizer.json"))
    content = "\U0001f321 " * 3
    assert len(vocabulary.encode("\U0001f321").ids) == 4
    row = held_out_loss(models["base"], [text(content)])["en"]
    size = len(content.encode()) - 1
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * row["tokens"] / math.log(2) / size)


def test_long_documents_are_cut(models: dict[str, Path]) -> None:
    row = held_out_loss(models["base"], [text("fever " * 2000)])["en"]
    assert row["tokens"] == MAX_TOKENS - 1
    assert row["loss"] == pytest.approx(own_loss(models["base"], text("fever " * 2000))[0], rel=1e-5)


def test_special_names_in_a_text_are_text(models: dict[str, Path]) -> None:
    assert held_out_loss(models["base"], [text("a<|endoftext|>")])["en"]["tokens"] > 2


def test_a_document_of_one_token_has_nothing_to_guess(models: dict[str, Path]) -> None:
    assert held_out_loss(models["base"], [text("a")]) == {}
