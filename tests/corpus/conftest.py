"""Builders for corpus tests: files of records, documents, and a vocabulary of bytes."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from polyclinic.corpus_section import CorpusSection

END, PAD = 256, 257


@pytest.fixture(scope="session")
def write_records() -> Callable[[Path, Iterable[Mapping[str, Any]]], Path]:
    """Write records as JSON lines or Parquet, by the file's suffix."""

    def write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            found = list(records)
            columns = {name: [r.get(name) for r in found] for name in dict.fromkeys(n for r in found for n in r)}
            pq.write_table(pa.table(columns), path)
        else:
            path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
        return path

    return write


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., CorpusSection]:
    """Return a corpus section over `tmp_path/in`; languages are only reported, unless asked otherwise."""

    def make(*texts: dict[str, Any], **settings: Any) -> CorpusSection:
        defaults = {"root": str(tmp_path / "in"), "check_language": "report", "held_out": 0.0}
        return CorpusSection.model_validate({"texts": list(texts), **defaults, **settings})

    return make


def _byte_names() -> list[str]:
    """Name each byte as a printable character, as GPT-2's byte-level vocabularies do (openai/gpt-2, encoder.py)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tokenizer whose token ids are the bytes of UTF-8: 256 ends, 257 pads."""
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer = Tokenizer(models.BPE(vocab={name: byte for byte, name in enumerate(_byte_names())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False), AddedToken("<|pad|>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "pad_token": "<|pad|>"}))
    return folder
