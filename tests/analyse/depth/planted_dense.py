"""A dense model whose FFN units belong to one of two languages from a known layer on, and parallel texts for it."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from polyclinic.analyse.passages import Passage

WORDS, UNITS, HIDDEN, LAYERS = 32, 200, 24, 6  # words: of each of two languages
SIZES = {"hidden_size": HIDDEN, "intermediate_size": UNITS, "num_attention_heads": 2, "num_key_value_heads": 2}


@torch.no_grad()
def planted(first: int, layers: int = LAYERS, seed: int = 0) -> PreTrainedModel:
    """Make word i of one language mean what word i + WORDS of the other means; only the last two dimensions differ.

    Units of layers before `first` do not see those; from there on the first half of the units
    answers to one language, the second half to the other.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=2 * WORDS, num_hidden_layers=layers, max_position_embeddings=64, **SIZES)
    model = LlamaForCausalLM(config).eval()
    meaning = torch.randn(WORDS, HIDDEN - 2)
    tongue = torch.tensor([[2.0, -2.0]] * WORDS + [[-2.0, 2.0]] * WORDS)
    model.get_input_embeddings().weight.copy_(torch.cat([meaning.repeat(2, 1), tongue], dim=1))
    model.lm_head.weight.zero_()
    model.lm_head.weight[:, :-2] = meaning.repeat(2, 1)
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj.weight.zero_()
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            projection.weight.normal_(std=0.4)
            projection.weight[:, -2:] = 0
        layer.mlp.down_proj.weight.normal_(std=0.02)
        layer.mlp.down_proj.weight[-2:] = 0
        if index >= first:
            sign = torch.tensor([1.0] * (UNITS // 2) + [-1.0] * (UNITS // 2))
            layer.mlp.gate_proj.weight[:, -2:] = torch.stack([2 * sign, -2 * sign], dim=1)
    return model


def texts(number: int = 60, parallel: bool = True, seed: int = 0) -> list[Passage]:
    """Return random texts in both languages; where not parallel, no two share words or a group."""
    draw = np.random.default_rng(seed)
    out = []
    for i in range(number):
        words = [draw.integers(WORDS, size=draw.integers(8, 20)) for _ in range(2)]
        other = words[0] if parallel else words[1]
        out.append(Passage("aa", f"a{i}", words[0].tolist()))
        out.append(Passage("bb", f"a{i}" if parallel else f"b{i}", (other + WORDS).tolist()))
    return out
