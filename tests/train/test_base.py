"""A base of one's own: a vocabulary that loses nothing, and a decoder of the stated shape."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import small
from polyclinic.corpus.pack.pack import load_tokenizer
from polyclinic.recipe import ScratchSection
from polyclinic.train.base import END, PAD, new_model, train_tokenizer

ANY_TEXT = settings(max_examples=50, deadline=None)


def shaped(**values: int) -> ScratchSection:
    return ScratchSection(steps=1, **values)


@ANY_TEXT
@given(st.text())
@example(f"a {END}{PAD} b")
@example("  two\r\n\tspaces \x00 e\u0301 \u200f")
def test_any_text_comes_back_from_its_tokens(vocabulary: Path, text: str) -> None:
    tokenizer, _ = load_tokenizer(vocabulary)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@ANY_TEXT
@given(st.text(), st.sampled_from([END, PAD]), st.text())
def test_the_name_of_a_special_token_in_a_text_is_text(vocabulary: Path, before: str, name: str, after: str) -> None:
    tokenizer, specials = load_tokenizer(vocabulary)
    assert not set(specials) & set(tokenizer.encode(before + name + after).ids)


def test_the_stock_tokenizer_reads_text_as_ours_does_and_names_as_text_when_told(vocabulary: Path) -> None:
    ours, specials = load_tokenizer(vocabulary)
    stock = AutoTokenizer.from_pretrained(vocabulary, local_files_only=True)
    text = f"water {END} {PAD} doctor"
    assert stock.encode(text, add_special_tokens=False, split_special_tokens=True) == ours.encode(text).ids
    assert stock.encode("water doctor", add_special_tokens=False) == ours.encode("water doctor").ids
    assert (stock.eos_token_id, stock.pad_token_id) == specials


def test_every_byte_has_a_token_and_the_size_is_as_asked(vocabulary: Path) -> None:
    tokens = Tokenizer.from_file(str(vocabulary / "tokenizer.json")).get_vocab()
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokens)
    assert len(tokens) == small.VOCABULARY


def test_the_same_texts_give_the_same_vocabulary(vocabulary: Path, tmp_path: Path) -> None:
    small.tokenizer(tmp_path)
    digests = {hashlib.sha256((f / "tokenizer.json").read_bytes()).hexdigest() for f in (vocabulary, tmp_path)}
    assert len(digests) == 1


def test_frequent_words_become_one_token(tmp_path: Path) -> None:
    train_tokenizer(["fever fever fever"] * 9, 300, tmp_path)
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(" fever").ids) == 1


def test_a_new_model_has_the_shape_of_its_recipe(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    hidden, inner, layers, heads, kv = 24, 20, 2, 4, 2
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_layers": layers}
    model = new_model(shaped(num_heads=heads, num_kv_heads=kv, **sizes), tokenizer, 64, seed=1)
    head = hidden // heads
    attention = 2 * hidden * hidden + 2 * hidden * kv * head + 2 * head  # q, o; k, v; norms of q and k
    layer = attention + 3 * hidden * inner + 2 * hidden
    assert sum(p.numel() for p in model.parameters()) == small.VOCABULARY * hidden + layers * layer + hidden
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(("pack_tokens", "positions"), [(64, 2048), (4096, 4096)])
def test_a_new_model_can_see_a_whole_pack(vocabulary: Path, pack_tokens: int, positions: int) -> None:
    tokenizer = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    assert new_model(shaped(**sizes), tokenizer, pack_tokens, 0).config.max_position_embeddings == positions


def test_weights_depend_on_the_seed_alone(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    one, again, other = (new_model(shaped(**sizes), tokenizer, 64, seed).lm_head.weight for seed in (1, 1, 2))
    assert one.equal(again)
    assert not one.equal(other)


def test_a_saved_model_ends_at_the_end_token(vocabulary: Path, tmp_path: Path) -> None:
    folder = small.dense(tmp_path / "dense", vocabulary)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.generation_config.eos_token_id == load_tokenizer(folder)[1].end
