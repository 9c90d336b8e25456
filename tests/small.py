"""Small things that tests of several stages share: texts, a tokenizer, checkpoints, packs, a recipe."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from polyclinic.corpus.pack import pack as packing
from polyclinic.families import load_preset
from polyclinic.progress import Silent
from polyclinic.recipe import Recipe, ScratchSection, UpcycleSection, validate
from polyclinic.records import Document, Turn
from polyclinic.train.base import new_model, train_tokenizer
from polyclinic.upcycle.build import build

LANGUAGES = ("ar", "en", "th", "zh")  # four families of the preset `balanced`
VOCABULARY = 300
PACK_TOKENS = 48
_WORDS = {
    "ar": "ماء دواء طبيب حمى طفل يد",
    "en": "water medicine doctor fever child hand",
    "th": "น้ำ ยา หมอ ไข้ เด็ก มือ",
    "zh": "水 药 医生 发烧 孩子 手",
}


def documents(per_language: int = 6, split: str = "train", seed: int = 0) -> list[Document]:
    """Return conversations of random words and random lengths in four languages."""
    draw = np.random.default_rng(seed)
    out = []
    for number in range(per_language):
        for code in LANGUAGES:
            words = [" ".join(draw.choice(_WORDS[code].split(), draw.integers(1, 10))) for _ in range(2)]
            turns = (Turn("user", words[0]), Turn("assistant", words[1]))
            out.append(Document(f"{code}{number}", code, "small", "CC0-1.0", str(number), turns, split))
    return out


def tokenizer(folder: Path) -> Path:
    """Train a small vocabulary on the small texts."""
    train_tokenizer((d.text() for d in documents(20)), VOCABULARY, folder)
    return folder


def dense(folder: Path, tokenizer_folder: Path, kind: str = "qwen3", seed: int = 0) -> Path:
    """Save a dense model of 3 layers, hidden size 32, as a stock checkpoint with a tokenizer."""
    vocabulary = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    sizes: dict[str, int] = {"hidden_size": 32, "intermediate_size": 40, "num_layers": 3}
    section = ScratchSection(steps=1, num_heads=2, num_kv_heads=1, **sizes)
    model: PreTrainedModel = new_model(section, vocabulary, PACK_TOKENS, seed)
    if kind == "qwen2":
        shared = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        values = {key: getattr(model.config, key) for key in (*shared, "num_key_value_heads", "tie_word_embeddings")}
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(Qwen2Config(**values, eos_token_id=0, bos_token_id=None))
    with torch.no_grad():  # far from fresh: routing and attention have something to tell apart
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def mixture(folder: Path, dense_folder: Path, noise: float = 0.5, families: str = "balanced") -> Path:
    """Upcycle a dense checkpoint: experts in the last two layers, two picks per token."""
    folder.mkdir()
    build(dense_folder, folder, UpcycleSection(last_layers=2, noise=noise, families=families), LANGUAGES, seed=0)
    return folder


def packs(
    folder: Path,
    tokenizer_folder: Path,
    per_language: int = 6,
    languages: Collection[str] = LANGUAGES,
    families: str = "balanced",
) -> Path:
    """Pack the small texts; several documents share a pack and long ones are cut."""
    folder.mkdir()
    vocabulary, specials = packing.load_tokenizer(tokenizer_folder)
    options = packing.Packing(PACK_TOKENS, "all", seed=0, how="in_order")
    expert_of = load_preset(families).expert_of
    taken = [document for document in documents(per_language) if document.language in languages]
    packing.pack(taken, vocabulary, specials, expert_of, folder, options, Silent())
    return folder


def recipe(**changes: Any) -> Recipe:
    """Return the smallest recipe that walks the whole journey; `changes` replace whole sections."""
    loop = {"steps": 6, "batch_packs": 2, "save_every": 2, "threads": 1}
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    values = {
        "name": "small",
        "seed": 3,
        "corpus": {
            "languages": list(LANGUAGES),
            "texts": [{"starter": True}],
            "exams": [{"starter": True, "splits": ["test"]}],
            "pack_tokens": 64,
            "decontaminate": None,
        },
        "base": {"from_scratch": {"vocab_size": 400, "learning_rate": 3e-3, **shape, **loop}},
        "upcycle": {"last_layers": 1},
        "train": loop,
        "analyse": {"shuffles": 10},
        "evaluate": {"max_questions": 2, "routing": "stock"},
    }
    return validate({**values, **changes}, "small")
