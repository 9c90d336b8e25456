"""Vocabularies of the kinds that parents bring, learned in seconds from the starter corpus."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from polyclinic.corpus import starter
from polyclinic.prompts import CHAT_TEMPLATE
from polyclinic.train.base import END, PAD, train_tokenizer

KINDS = ("own", "qwen2", "llama2", "metaspace")
SIZE = 3000


def texts() -> Iterable[str]:
    """Return the starter corpus, a line break behind each turn: tokens over line ends are learned where they can be."""
    return [document.text() + "\n" for document in starter.documents()]


def vocabulary(kind: str, folder: Path) -> Path:
    """Learn a vocabulary with the normaliser and pre-tokeniser of a kind, and save it with our template."""
    folder.mkdir()
    if kind == "own":
        train_tokenizer(texts(), SIZE, folder)
        return folder
    tokenizer = Tokenizer(models.BPE(byte_fallback=kind != "qwen2"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet: list[str] = []
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    elif kind == "llama2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        # Learned on words, used without: as SentencePiece does.
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁"), "isolated")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    specials: list[str | AddedToken] = [AddedToken(name, normalized=False) for name in (END, PAD)]
    bytes_of = [f"<0x{byte:02X}>" for byte in range(256)] if kind != "qwen2" else []
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=[*specials, *bytes_of], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    stock = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    stock.chat_template = CHAT_TEMPLATE
    stock.save_pretrained(folder)
    return folder
