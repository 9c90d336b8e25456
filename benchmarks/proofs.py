"""Proof figures of one mixture per architecture, random weights: `python benchmarks/proofs.py [--wide]`.

Prints, for each, what `polyclinic upcycle verify` prints. `--wide` takes the width of a 0.5B model
(hidden 896, inner 4864) instead of a toy.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build

TOY = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 96}
WIDE = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "vocab_size": 8192}
COMMON = {"num_hidden_layers": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.05}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 5e5,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen2, yarn": ("qwen2", {"rope_parameters": YARN}),
    "Qwen3, own head_dim": ("qwen3", {"head_dim": 64}),
    "Llama 2": ("llama", {}),
    "Llama 3.x, llama3 RoPE": ("llama", {"rope_parameters": LLAMA3, "head_dim": 64}),
    "SmolLM (Llama, tied)": ("llama", {"tie_word_embeddings": True}),
    "Mistral, own head_dim": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "Mistral, window 16": ("mistral", {"sliding_window": 16}),
    "Phi-4 (fused)": ("phi3", {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}),
}


def make_dense(folder: Path, kind: str, values: dict[str, Any]) -> None:
    """Save a random dense model whose biases and norms are off their zeros and ones."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def main() -> None:
    """Print one line per architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wide", action="store_true")
    sizes = WIDE if parser.parse_args().wide else TOY
    torch.set_num_threads(1)
    print(f"{'base':<24} {'logits':>9} {'bound':>9} {'batch 1/2':>9} {'apart':>9} {'bound':>9} {'bf16':>9}  copies")
    for name, (kind, own) in CASES.items():
        with tempfile.TemporaryDirectory() as root:
            dense, out = Path(root) / "dense", Path(root) / "moe"
            make_dense(dense, kind, {**sizes, **COMMON, **own})
            out.mkdir()
            facts = build(dense, out, UpcycleSection(families="balanced"), ["en"], 0)
        figures = (
            facts["difference"],
            2e-6 * facts["largest_logit"],
            facts["dense_batch_difference"],
            facts["mixture_difference"],
            2e-6 * facts["largest_output"],
            facts["bf16_difference"],
        )
        print(f"{name:<24} " + " ".join(f"{f:>9.1e}" for f in figures) + f"  {facts['copied_tensors']}", flush=True)


if __name__ == "__main__":
    main()
