"""A stock model without its weights: which tensors its class expects, and a way to run it in parts.

A model larger than memory can still be proven: each part (embedding, decoder layer, norm, head)
takes its weights from the files when it is called and lets go of them when it has answered, so that
memory is bounded by the largest part. The classes, masks and caches are the stock ones.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import quiet, read_config, tensor_files, tied_copies

FUSED = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)")
Shape = tuple[int, ...]


def skeleton(config: Mapping[str, Any], where: object) -> PreTrainedModel:
    """Build the stock model of a config.json with parameters on the meta device and real buffers.

    Raises CheckpointError where the stock classes refuse the config.
    """
    try:
        with quiet(), init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    except Exception as err:  # a strange value fails anywhere in the stock classes
        what = f"config.json is refused by the stock classes ({' '.join(str(err).split())[:200]})"
        raise CheckpointError(where, what, "fetch the checkpoint again") from err


def expected_tensors(model: PreTrainedModel) -> dict[str, Shape]:
    """Return name -> shape of every tensor that the checkpoint of a model holds, experts one by one."""
    out: dict[str, Shape] = {}
    for name, tensor in model.state_dict().items():
        fused = FUSED.fullmatch(name)
        if fused is None:
            out[name] = tuple(tensor.shape)
            continue
        num_experts, rows, columns = tensor.shape
        for expert in range(num_experts):
            out |= {part: (size, columns) for part, size in _parts(fused, expert, rows)}
    if model.config.tie_word_embeddings:
        out.pop("lm_head.weight", None)
    return out


def _parts(fused: re.Match[str], expert: int, rows: int) -> list[tuple[str, int]]:
    """Return the file's tensors that make one expert's slice of a fused one, with their rows, in order."""
    stem, kind = fused.groups()
    if kind == "down_proj":
        return [(f"{stem}.{expert}.down_proj.weight", rows)]
    return [(f"{stem}.{expert}.{part}.weight", rows // 2) for part in ("gate_proj", "up_proj")]


def check_tensors(folder: Path, expected: Mapping[str, Shape]) -> dict[str, Path]:
    """Return name -> file of a folder that holds just the expected tensors with their shapes.

    Raises CheckpointError naming the first that is missing, left over or of another shape.
    """
    files = tensor_files(folder)
    for name in tied_copies(folder, files):
        if name not in expected:
            files.pop(name)
    for kind, names in (("missing", set(expected) - set(files)), ("unexpected", set(files) - set(expected))):
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise CheckpointError(folder, f"{kind} keys: {shown}", "give a complete checkpoint of its config")
    for path in sorted(set(files.values())):
        with safe_open(path, framework="pt") as file:
            for name in (n for n, p in files.items() if p == path):
                shape = tuple(file.get_slice(name).get_shape())
                if shape != expected[name]:
                    what = f"{name} has shape {list(shape)}, its config says {list(expected[name])}"
                    raise CheckpointError(path, what, "fetch the checkpoint again")
    return files


def checked_files(folder: Path) -> dict[str, Path]:
    """Return name -> file of a checkpoint folder that holds just what its config.json asks for."""
    return check_tensors(folder, expected_tensors(skeleton(read_config(folder), folder)))


class Parts:
    """A stock model that holds the weights of one part at a time; call it with tokens for logits.

    Raises CheckpointError unless every tensor of the folder finds its place.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        config = read_config(folder)
        self.model = skeleton(config, folder)
        self._files = check_tensors(folder, expected_tensors(self.model))
        self._dtype = dtype
        decoder = self.model.get_decoder()
        names = {id(module): name for name, module in self.model.named_modules()}
        for part in (decoder.embed_tokens, *decoder.layers, decoder.norm, self.model.lm_head):
            part.register_forward_pre_hook(partial(self._take, names[id(part)]))
            part.register_forward_hook(self._drop)

    @torch.no_grad()
    def __call__(self, tokens_BS: Tensor) -> Tensor:
        """Return the logits (batch, tokens, vocabulary)."""
        logits: Tensor = self.model(input_ids=tokens_BS, use_cache=False, return_dict=True).logits
        return logits

    @torch.no_grad()
    def states(self, tokens_BS: Tensor, mask_BS: Tensor) -> None:
        """Run the decoder alone, for what hooks see; `mask_BS` is 0 on padding."""
        self.model.get_decoder()(input_ids=tokens_BS, attention_mask=mask_BS, use_cache=False)

    def _take(self, prefix: str, part: nn.Module, _: Any) -> None:
        for name, owner, leaf in list(_leaves(part)):
            shape = owner._parameters[leaf].shape
            value = self._read(f"{prefix}.{name}", shape)
            owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)

    def _drop(self, part: nn.Module, *_: Any) -> None:
        for _name, owner, leaf in list(_leaves(part)):
            owner._parameters[leaf] = nn.Parameter(owner._parameters[leaf].to("meta"), requires_grad=False)

    def _read(self, name: str, shape: torch.Size) -> Tensor:
        out = torch.empty(shape, dtype=self._dtype)
        fused = FUSED.fullmatch(name)
        if fused is None:
            tied = name == "lm_head.weight" and name not in self._files
            out.copy_(read_tensor(self._files, "model.embed_tokens.weight" if tied else name))
            return out
        for expert in range(shape[0]):
            start = 0
            for part, rows in _parts(fused, expert, shape[1]):
                out[expert, start : start + rows].copy_(read_tensor(self._files, part))
                start += rows
        return out


def _leaves(part: nn.Module) -> Iterator[tuple[str, Any, str]]:
    """Yield name, owning module and attribute of every parameter."""
    for prefix, owner in part.named_modules():
        for leaf in (name for name, value in owner._parameters.items() if value is not None):
            yield f"{prefix}.{leaf}".lstrip("."), owner, leaf


def read_tensor(files: Mapping[str, Path], name: str) -> Tensor:
    """Read one tensor of a checkpoint; the file is mapped, so only what is used enters memory."""
    with safe_open(files[name], framework="pt") as file:
        value: Tensor = file.get_tensor(name)
    return value
