"""Time of the statistics of 1M routed tokens of a 24-layer model: `PYTHONPATH=src:tests python benchmarks/analyse.py`.

Tokens are simulated (50 languages, 64 buckets each, all of them of the 2,000 ids that are counted by id,
which is the most work there can be); the clock runs over `describe` alone.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np

from made_tallies import counted, world
from polyclinic.analyse.measures.describe import describe
from polyclinic.families import fifty, load_preset

LAYERS, BUCKETS, TOKENS, IDS, SHARED = 24, 64, 312, 1200, 600
NOISE = 0.3
PAIRED = 60  # pairs of ids and predecessors are counted for the most frequent of both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--shuffles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    made = world(fifty(), BUCKETS, TOKENS, IDS, SHARED)
    frequent = (made.token < PAIRED) & (made.previous < PAIRED)
    made = replace(made, previous=np.where(frequent, made.previous, -1))
    picks = np.empty((len(made), LAYERS, options.top_k), dtype=np.int64)
    for layer in range(LAYERS):
        seen = np.where(generator.random(len(made)) < layer / LAYERS, made.language, made.token)
        start = np.where(generator.random(len(made)) < NOISE, generator.integers(options.experts, size=len(made)), seen)
        picks[:, layer] = (start[:, None] + np.arange(options.top_k)) % options.experts
    nothing = np.zeros((len(made), LAYERS))
    tally = counted(made, picks, (nothing, nothing), options.experts)
    entries, rows = len(tally.shared.counts.row_N), len(tally.shared.token_R)
    print(f"{len(made):,} tokens, {rows:,} rows, {entries:,} entries, {options.shuffles} shuffles")
    preset = load_preset("apollo")
    families = {
        "families": [{"name": family.name} for family in preset.families],
        "expert_of": {code: preset.expert_of(code) for code in fifty()},
    }
    start_seconds, start_cpu = time.perf_counter(), time.process_time()
    describe(tally, families, options.shuffles, options.seed)
    seconds, cpu = time.perf_counter() - start_seconds, time.process_time() - start_cpu
    print(f"describe: {seconds:.1f} s, {cpu:.1f} s of processor, at most {_gigabytes():.1f} GB")


def _gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
