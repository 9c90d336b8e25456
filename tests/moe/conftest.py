"""Tiny models and checkpoint folders, made by the stock classes."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.blueprint import Mixture, blueprint_for, dense_config, moe_config
from polyclinic.moe.checkpoint import CONFIG, read_config
from polyclinic.moe.convert import headers, plan_tensors, write_tensors
from polyclinic.moe.skeleton import checked_files
from polyclinic.runs import write_json

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "llama": {},
    "mistral": {"sliding_window": None},
    "phi3": {"bos_token_id": 1, "eos_token_id": 2},
}
NATIVE = ("qwen2", "qwen3")  # one for each native mixture; the fixture `kind` walks them
MIXED = {
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 0,
    "mlp_only_layers": [0],
    "initializer_range": 0.5,
}
Make = Callable[..., Any]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=NATIVE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _made(model_type: str, seed: int, **values: Any) -> PreTrainedModel:
    """Build a stock model with biases and norms off their zeros and ones, so that a lost one shows."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **deepcopy(values)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def dense() -> Make:
    def make(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
        return _made(kind, seed, **SIZES | OWN[kind] | changes)

    return make


@pytest.fixture
def mixture() -> Make:
    """Make a stock Post-MoE: layer 0 dense, layers 1 and 2 with five experts that differ."""

    def make(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
        return _made(f"{kind}_moe", seed, **SIZES | OWN[kind] | MIXED | changes)

    return make


@pytest.fixture
def converted() -> Make:
    """Make a mixture folder beside a dense folder; returns it."""

    def make(dense_folder: Path, sparse: tuple[int, ...] = (1, 2), num_experts: int = 5, **choices: Any) -> Path:
        out = dense_folder.with_name(f"{dense_folder.name}-moe")
        out.mkdir()
        raw = read_config(dense_folder)
        config, blueprint = dense_config(raw, dense_folder), blueprint_for(raw, dense_folder)
        mixture = Mixture(sparse, num_experts, **choices)
        files = checked_files(dense_folder)
        write_tensors(plan_tensors(headers(files), config, blueprint, mixture), files, out, mixture.seed, {})
        write_json(out / CONFIG, moe_config(config, blueprint, mixture))
        return out

    return make


@pytest.fixture
def pair(kind: str, dense: Make, converted: Make, made_once: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return private copies of a dense parent's folder and of its mixture's."""
    if not (made_once / kind).is_dir():
        dense(kind).save_pretrained(made_once / kind)
        converted(made_once / kind)
    for made, copied in ((kind, "dense"), (f"{kind}-moe", "moe")):
        shutil.copytree(made_once / made, tmp_path / copied)
    return tmp_path / "dense", tmp_path / "moe"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made-once")


@pytest.fixture
def change_tensors() -> Make:
    """Change the tensors of a folder's only weight file in place, keeping an index true."""

    def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
        (path,) = folder.glob("*.safetensors")
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
        if (folder / "model.safetensors.index.json").is_file():
            index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, path.name)}
            write_json(folder / "model.safetensors.index.json", index)

    return change


@pytest.fixture
def change_config() -> Make:
    def change(folder: Path, **values: Any) -> None:
        write_json(folder / CONFIG, json.loads((folder / CONFIG).read_text("utf-8")) | values)

    return change


@pytest.fixture
def watch() -> Callable[[PreTrainedModel], AbstractContextManager[list[Tensor]]]:
    """Collect what the experts are handed: one (rows, tokens, picks) tensor per sparse layer and forward."""

    @contextmanager
    def watching(model: PreTrainedModel) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []
        shapes: list[torch.Size] = []

        def block(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            shapes.append(args[0].shape[:2])

        def experts(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.append(args[1].reshape(*shapes[-1], -1))

        layers = sparse_layers(model).values()
        handles = [layer.mlp.register_forward_pre_hook(block) for layer in layers]
        handles += [layer.mlp.experts.register_forward_pre_hook(experts) for layer in layers]
        yield seen
        for handle in handles:
            handle.remove()

    return watching
