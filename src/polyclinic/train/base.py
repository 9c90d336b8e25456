"""A base of one's own: a byte-level BPE and a small Qwen3-shaped decoder, from corpus text."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from polyclinic.prompts import CHAT_TEMPLATE
from polyclinic.recipe import ScratchSection

END = "<|endoftext|>"
PAD = "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE (every text can be encoded, none is unknown) and save it stock."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END, normalized=False), AddedToken(PAD, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Special tokens are found in a string, as everywhere: only so do the ends that the template writes become tokens.
    stock = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    stock.chat_template = CHAT_TEMPLATE
    stock.save_pretrained(folder)


def scratch_config(section: ScratchSection, vocab_size: int, pack_tokens: int) -> Qwen3Config:
    """Return the shape of a dense base that is trained here."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=section.hidden_size,
        intermediate_size=section.intermediate_size,
        num_hidden_layers=section.num_layers,
        num_attention_heads=section.num_heads,
        num_key_value_heads=section.num_kv_heads,
        head_dim=section.hidden_size // section.num_heads,
        max_position_embeddings=max(2048, pack_tokens),
        tie_word_embeddings=True,
        bos_token_id=None,
    )


def new_model(section: ScratchSection, tokenizer: Tokenizer, pack_tokens: int, seed: int) -> PreTrainedModel:
    """Make a freshly initialised decoder in fp32."""
    config = scratch_config(section, tokenizer.get_vocab_size(), pack_tokens)
    config.eos_token_id, config.pad_token_id = (tokenizer.token_to_id(token) for token in (END, PAD))
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)
