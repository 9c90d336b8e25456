"""What counting routes costs: time beside plain forwards, and peak memory for ten times the text.

    python benchmarks/analyse_capture.py speed [--hidden 256] [--experts 8] [--layers 24] [--rounds 5]
    python benchmarks/analyse_capture.py memory [--tokens 60000]

`speed` runs the same batches plain and counted in turn on a random mixture with experts in every
layer. `memory` analyses a folder of text and one ten times as large, each in a process of its own,
and compares the peaks of resident memory. CPU only; counting is done as `analyse run` does it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from polyclinic.analyse.counting import Counts, Text
from polyclinic.analyse.route import route
from polyclinic.analyse.sampling import Sample, quota
from polyclinic.analyse.texts import BUCKETS
from polyclinic.moe.forward import batches, padded

LANGUAGES, VOCABULARY, PICKS = 10, 8000, 2


def mixture(layers: int, hidden: int, experts: int) -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, moe_intermediate_size=2 * hidden, intermediate_size=2 * hidden,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4, head_dim=hidden // 4,
        num_experts=experts, num_experts_per_tok=PICKS, mlp_only_layers=[],
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config).eval()


def texts(tokens: int) -> list[Text]:
    draw, out, total = np.random.default_rng(0), [], 0
    while total < tokens:
        ids = (draw.zipf(1.3, size=draw.integers(100, 512)) % VOCABULARY).tolist()
        language = len(out) % LANGUAGES
        out.append(
            Text(str(len(out)), language, language * BUCKETS + len(out) % BUCKETS, len(out), ids, [True] * len(ids))
        )
        total += len(ids)
    return out


@torch.no_grad()
def plain(model: Qwen3MoeForCausalLM, rows: list[list[int]]) -> float:
    start = time.perf_counter()
    for batch in batches(rows):
        model.model(input_ids=padded([rows[i] for i in batch]), use_cache=False)
    return time.perf_counter() - start


def counted(model: Qwen3MoeForCausalLM, window: list[Text]) -> float:
    layers, experts = model.config.num_hidden_layers, model.config.num_experts
    sample = Sample(layers, LANGUAGES, quota(layers, PICKS, LANGUAGES))
    codes = [str(i) for i in range(LANGUAGES)]
    counts = Counts(range(layers), experts, codes, [0] * LANGUAGES, sample=sample)
    start = time.perf_counter()
    route(model, [window], counts)
    return time.perf_counter() - start


def speed(asked: argparse.Namespace) -> None:
    model, window = mixture(asked.layers, asked.hidden, asked.experts), texts(asked.tokens)
    rows = [text.ids for text in window]
    times = [(plain(model, rows), counted(model, window)) for _ in range(asked.rounds + 1)][1:]
    alone, both = zip(*times, strict=True)
    total = sum(map(len, rows))
    print(f"{asked.layers} layers, hidden {asked.hidden}, {asked.experts} experts, {total:,} tokens")
    for name, pick in (("median", np.median), ("minimum", min)):
        a, b = float(pick(alone)), float(pick(both))
        print(f"{name:8} plain {total / a:8,.0f} tokens/s   counted {total / b:8,.0f}   {100 * a / b:.1f} % of plain")


def memory(asked: argparse.Namespace) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        mixture(asked.layers, asked.hidden, asked.experts).save_pretrained(root / "model")
        tokenizer.save(str(root / "model" / "tokenizer.json"))
        peaks = []
        for times in (1, 10):
            folder = root / f"text{times}"
            folder.mkdir()
            for text in texts(asked.tokens * times):
                code = ("en", "fr", "de", "es", "it", "pt", "ru", "zh", "ar", "hi")[text.language]
                line = json.dumps(
                    {"text": " ".join(f"w{i}" for i in text.ids), "parallel_id": str(text.place // LANGUAGES)}
                )
                with (folder / f"{code}.jsonl").open("a") as file:
                    file.write(line + "\n")
            command = [sys.executable, __file__, "one", str(root / "model"), str(folder), str(root / f"out{times}")]
            seconds = time.perf_counter()
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            peaks.append(int(found) / 1024)
            seconds = time.perf_counter() - seconds
            print(f"{asked.tokens * times:>10,} tokens   peak {peaks[-1]:,.0f} MB   {seconds:.0f} s", flush=True)
        print(f"ten times the text takes {100 * peaks[1] / peaks[0]:.1f} % of the memory")


def one(model: Path, folder: Path, out: Path) -> None:
    from polyclinic.analyse.run import run
    from polyclinic.analyse.texts import Folder
    from polyclinic.progress import Silent
    from polyclinic.recipe import AnalyseSection

    out.mkdir()
    run(AnalyseSection(shuffles=10), model, Folder(folder), out, 0, Silent())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    if sys.argv[1] == "one":
        return one(*map(Path, sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "memory"))
    for name, value in (("hidden", 256), ("experts", 8), ("layers", 24), ("rounds", 5), ("tokens", 8192)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    return speed(asked) if asked.what == "speed" else memory(asked)


if __name__ == "__main__":
    main()
