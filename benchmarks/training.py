"""Time a training step of a small dense model against its mixture, interleaved in one process.

    python benchmarks/training.py [--rounds 7] [--tokens 2048]

Ratios within one run are what counts; machines are shared and noisy, so minima and medians are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from polyclinic.moe.attach import attach
from polyclinic.moe.checkpoint import load_model
from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build

SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "tie_word_embeddings": True,
}
LENGTH = 256


def stepper(model: torch.nn.Module, tokens: torch.Tensor, **ids: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        logits = model(input_ids=tokens, use_cache=False, **ids).logits[:, :-1].flatten(0, 1)
        F.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = torch.randint(SHAPE["vocab_size"], (arguments.tokens // LENGTH, LENGTH))
    with TemporaryDirectory() as folder:
        dense_folder, moe_folder = Path(folder) / "dense", Path(folder) / "moe"
        moe_folder.mkdir()
        Qwen3ForCausalLM(Qwen3Config(**SHAPE)).save_pretrained(dense_folder)
        build(dense_folder, moe_folder, UpcycleSection(), ["en"], 0)
        dense, mixture = load_model(dense_folder).train(), load_model(moe_folder).train()
    attach(mixture)
    families = torch.randint(7, (tokens.shape[0], 1)).expand_as(tokens)
    steps = {"dense": stepper(dense, tokens), "mixture": stepper(mixture, tokens, family_ids=families)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 1):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            times[name].append(time.process_time() - begun)
    print(f"{'':<10} {'min s':>8} {'median s':>9} {'tokens/s':>9}   CPU time, {arguments.tokens} tokens")
    for name, values in times.items():
        low, middle = min(values[1:]), statistics.median(values[1:])
        print(f"{name:<10} {low:>8.3f} {middle:>9.3f} {arguments.tokens / middle:>9.0f}")
    low, middle = (f(times["mixture"][1:]) / f(times["dense"][1:]) for f in (min, statistics.median))
    print(f"mixture / dense: {low:.2f} by minima, {middle:.2f} by medians")


if __name__ == "__main__":
    main()
