"""What a trained checkpoint carries beside its weights: vocabulary, template, end token and settings.

The vocabulary travels byte for byte. Template and end token are those of the packs, whatever the
parent was talked to with: the model has learned no other.
"""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from polyclinic.corpus.pack.pack import Specials, load_tokenizer
from polyclinic.moe.checkpoint import COMPANIONS, CONFIG, read_config
from polyclinic.prompts import CHAT_TEMPLATE
from polyclinic.runs import read_json, write_bytes, write_json

TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
OF_THE_MODEL = "generation_config.json"  # written with the weights


def save_with_companions(
    model: PreTrainedModel, source: Path, folder: Path, state: dict[str, Tensor] | None = None
) -> None:
    """Save a trained model as a stock checkpoint, ready to be talked to; `source` holds its tokenizer.

    `state` takes the place of the model's own where its weights are sharded.
    Raises CheckpointError where the tokenizer names no end token.
    """
    _, specials = load_tokenizer(source)
    _settle(model, specials)
    model.save_pretrained(folder, state_dict=state)
    _keep_names(source, folder)
    for name in COMPANIONS:
        if name not in (TEMPLATE, TOKENIZER, OF_THE_MODEL) and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    write_json(folder / TOKENIZER, _tokenizer_settings(read_json(source / TOKENIZER)))
    write_bytes(folder / TEMPLATE, CHAT_TEMPLATE.encode())


def _settle(model: PreTrainedModel, specials: Specials) -> None:
    """Let generation end where training ended turns; the cache, which training turned off, is on again."""
    model.config.use_cache = True
    settings: list[Any] = [model.config, model.generation_config]
    for place in settings:
        place.eos_token_id, place.pad_token_id = specials


def _keep_names(source: Path, folder: Path) -> None:
    """Write again what the built config.json had and saving renamed: readers of transformers 4 know no other names."""
    if (source / CONFIG).is_file():
        write_json(folder / CONFIG, {**read_config(source), **read_config(folder)})


def _tokenizer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return tokenizer settings under which the template's end tokens are tokens and padding is possible."""
    kept = {k: v for k, v in settings.items() if k not in ("chat_template", "split_special_tokens")}
    return {**kept, "pad_token": kept.get("pad_token") or kept["eos_token"]}
