"""Checkpoint folders: read as data, loaded strictly, saved as stock.

Loading never runs code from a folder (`auto_map` is refused), never reads pickle, and fails where
one tensor is missing or left over: the stock loaders only warn, and a model with fresh random
experts looks plausible.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from polyclinic.errors import CheckpointError
from polyclinic.runs import write_json

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
POLYCLINIC = "polyclinic.json"  # families and lineage of a mixture; stock loaders do not read it
LONG = 100  # characters of another's message that are not shown
FORMAT = 1  # of polyclinic.json
EXPERT_PART = re.compile(r"(.+\.experts)\.(\d+)\.(.+)")

# What travels with weights: vocabulary, template and generation settings.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)


def resolve(name: str) -> Path:
    """Return a local folder for a path or a hub id, fetching safetensors and JSON only."""
    if Path(name).is_dir():
        return Path(name)
    _check_hub_id(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as err:
        raise _not_there(name, err) from err


def fetch_config(name: str) -> Path:
    """Return a folder that holds the config.json of a hub id; nothing else is fetched."""
    _check_hub_id(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, CONFIG)).parent
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as err:
        raise _not_there(name, err) from err


def _check_hub_id(name: str) -> None:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(name, "no such folder", "give a folder or a hub id such as org/model")


def _not_there(name: str, err: Exception) -> CheckpointError:
    what = f"no such folder, and not to be had from the hub ({type(err).__name__})"
    return CheckpointError(name, what, "give the path of a local checkpoint")


def read_config(folder: Path, own_code: bool = False) -> dict[str, Any]:
    """Read config.json; refuses folders that ask for their own code, unless it is only to be read past."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(folder, "holds no config.json", "give a checkpoint folder")
    config = _read_object(folder / CONFIG)
    if "auto_map" in config and not own_code:
        raise CheckpointError(folder, "wants to run code of its own (auto_map)", "use a native checkpoint")
    return config


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, OSError, RecursionError) as err:
        why = str(err) if type(err) is ValueError and len(str(err)) < LONG else type(err).__name__
        raise CheckpointError(path, f"cannot be read ({why})", "fetch the checkpoint again") from err
    if not isinstance(value, dict):
        raise CheckpointError(path, "is not a JSON object", "fetch the checkpoint again")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: readers would not agree on which one counts."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"'{key}' stands twice")
        seen.add(key)
    return dict(pairs)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return tensor name -> safetensors file; like the stock loader, prefers a single file to an index.

    Raises CheckpointError for pickled weights, missing shards and names the index invents.
    """
    if (folder / SINGLE).is_file():
        files, listed = [folder / SINGLE], {}
    elif (folder / INDEX).is_file():
        weight_map = _read_object(folder / INDEX).get("weight_map")
        if not weight_map or not isinstance(weight_map, dict):
            raise CheckpointError(folder / INDEX, "holds no weight_map", "fetch the checkpoint again")
        listed = {str(k): folder / str(v) for k, v in weight_map.items()}
        for path in sorted(set(listed.values())):
            if path.parent != folder:
                raise CheckpointError(folder / INDEX, f"names a file elsewhere ({path.name})", "fetch it again")
            if not path.is_file():
                raise CheckpointError(path, "the index names it, it is not there", "fetch the shard again")
        files = sorted(set(listed.values()))
    else:
        raise CheckpointError(folder, "holds no safetensors weights", "convert it to safetensors first")
    found = {name: path for path in files for name in _names(path)}
    if listed and found != listed:
        odd = sorted(set(found.items()) ^ set(listed.items()))[0][0]
        raise CheckpointError(folder, f"index and shards disagree on '{odd}'", "fetch the checkpoint again")
    return found


def tied_copies(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """Return tensors of a folder that carry nothing: a tied output head, and rotary tables of early Llamas.

    Raises CheckpointError where the head is tied by the config and differs in the file: readers
    would not agree on which one counts.
    """
    out = [name for name in files if name.endswith("rotary_emb.inv_freq")]
    tied, head = "model.embed_tokens.weight", "lm_head.weight"
    if read_config(folder, own_code=True).get("tie_word_embeddings") and {tied, head} <= set(files):
        with safe_open(files[tied], framework="pt") as one, safe_open(files[head], framework="pt") as other:
            if not torch.equal(one.get_tensor(tied), other.get_tensor(head)):
                what = "config.json ties the output head to the embedding, the files hold two that differ"
                raise CheckpointError(folder, what, "set tie_word_embeddings as the model was trained")
        out.append(head)
    return out


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as err:
        raise CheckpointError(path, "is damaged or not safetensors", "fetch it again") from err


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """Raise CheckpointError for a tokenizer that is damaged or has ids the embedding has no row for."""
    for name in COMPANIONS:
        if os.path.lexists(folder / name) and not (folder / name).is_file():
            raise CheckpointError(folder / name, "is no file", "fetch the checkpoint again")
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        largest = max(Tokenizer.from_file(str(path)).get_vocab().values(), default=-1)
    except Exception as err:  # the library raises bare Exception
        raise CheckpointError(path, f"cannot be read ({str(err)[:100]})", "fetch the checkpoint again") from err
    if largest >= vocab_size:
        what = f"its largest id {largest} has no row in an embedding of {vocab_size}"
        raise CheckpointError(path, what, "give the tokenizer of this model, or enlarge the embedding first")


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal language model; raises CheckpointError unless every tensor finds its place."""
    read_config(folder)
    _check_experts(folder, tensor_files(folder))
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported in `info`, with names, and refused below
            )
    except Exception as err:  # a strange config fails anywhere in the stock classes
        what = f"cannot be loaded ({type(err).__name__}: {str(err)[:200]})"
        raise CheckpointError(folder, what, "check the folder") from err
    wrong = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if wrong:
        kind, names = next(iter(wrong.items()))
        raise CheckpointError(folder, f"{kind.replace('_', ' ')}: {', '.join(names[:3])}", "check the folder")
    return model


def _check_experts(folder: Path, names: Iterable[str]) -> None:
    """Name an absent part of an expert; the stock loader only says that a conversion failed."""
    found = [m.groups() for m in map(EXPERT_PART.fullmatch, names) if m]
    whole = {(*expert, part) for *expert, _ in found for part in {part for *_, part in found}}
    absent = sorted(whole - set(found))
    if absent:
        raise CheckpointError(folder, f"missing keys: {'.'.join(absent[0])}", "fetch the checkpoint again")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the stock loading report, progress bar and warning off stderr: a fault is raised in one line."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # the empty shared expert
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def write_families(folder: Path, facts: dict[str, Any]) -> None:
    """Write the family map and lineage of a mixture beside its weights."""
    write_json(folder / POLYCLINIC, facts)


def read_families(folder: Path) -> dict[str, Any]:
    """Read the family map of a mixture; raises CheckpointError where there is none, or a newer one."""
    path = folder / POLYCLINIC
    if not path.is_file():
        raise CheckpointError(folder, "holds no polyclinic.json", "build it with polyclinic upcycle build")
    facts = _read_object(path)
    if facts.get("format") != FORMAT:
        what = f"is of format {facts.get('format')}, this release reads {FORMAT}"
        raise CheckpointError(path, what, "use the release that wrote it, or a newer one")
    return facts
