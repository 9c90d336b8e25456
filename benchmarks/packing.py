"""Speed, padding and memory of packing after tokenising: `python benchmarks/packing.py [RUN]`.

RUN is a run folder with `corpus` and `tokenizer`; without one, documents are drawn whose lengths are
log-normal about 120 tokens, some longer than a pack. CPU seconds of one process; each figure is
the best of ROUNDS. Then the same at one and ten times the documents, each in a process of its own, for
the peak of the memory that no file backs.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from polyclinic.corpus.pack import fit
from polyclinic.corpus.pack.shards import ShardWriter
from polyclinic.corpus.pack.tokens import Store

ROUNDS, DOCUMENTS = 3, 30_000


def drawn(store: Store, documents: int) -> int:
    """Fill a store with documents of random lengths; returns the number of groups."""
    generator = np.random.default_rng(0)
    tokens = np.arange(20_000)
    for number, size in enumerate(np.minimum(generator.lognormal(4.8, 1.3, documents), 20_000).astype(int)):
        store.add(f"document {number}", number % 50, tokens[:size], tokens[:size])
    store.seal()
    return 50


def tokenised(store: Store, run: Path) -> int:
    """Fill a store with the training text of a run."""
    from polyclinic.corpus.build import read_documents
    from polyclinic.corpus.pack.pack import load_tokenizer, tokenise
    from polyclinic.progress import Silent

    training = (d for d in read_documents(run / "corpus") if d.split == "train")
    clock = time.process_time()
    groups = tokenise(training, *load_tokenizer(run / "tokenizer"), "all", store, Silent())
    print(f"tokenised in {time.process_time() - clock:.1f} CPU seconds")
    return len(groups)


def laid(store: Store, groups: int, length: int, how: fit.How) -> dict[str, Any]:
    """Pack a store once; returns packs, cuts and CPU seconds."""
    stream = np.random.default_rng(1).permutation(len(store.lengths))
    clock, pieces = time.process_time(), 0
    with TemporaryDirectory() as place:
        with ShardWriter(Path(place), length, 0, np.zeros((groups, 2), np.int16)) as writer:
            for found in fit.planner(how)(stream, store.lengths, length, fit.WINDOW):
                writer.write(found, store)
                pieces += len(found.length)
        seconds = time.process_time() - clock
        size = sum(path.stat().st_size for path in Path(place).iterdir())
    cuts = pieces - int((store.lengths > 0).sum())
    return {"packs": writer.packs, "cuts": cuts, "seconds": seconds, "bytes": size}


def speed(run: Path | None) -> None:
    """Print a line for each pack length and way."""
    with TemporaryDirectory() as place, Store(Path(place) / "store") as store:
        groups = drawn(store, DOCUMENTS) if run is None else tokenised(store, run)
        tokens = int(store.lengths.sum())
        print(f"{len(store.lengths):,} documents, {tokens:,} tokens")
        for length in (256, 1024, 4096):
            for how in ("best_fit", "in_order"):
                rounds = [laid(store, groups, length, how) for _ in range(ROUNDS)]  # type: ignore[arg-type]
                best = min(one["seconds"] for one in rounds)
                one = rounds[0]
                padding = 100 * (1 - tokens / (one["packs"] * length))
                print(
                    f"{length:>5} {how:<9} {one['packs']:>7,} packs  padding {padding:.3f} %  {one['cuts']:>7,} cuts  "
                    f"{tokens / best / 1e6:.1f} M tokens/s  {one['bytes'] / tokens:.2f} bytes/token"
                )


def memory(times: int) -> None:
    """Pack drawn documents in this process and print the peak of anonymous memory, sampled after each window."""
    peak = 0
    with TemporaryDirectory() as place, Store(Path(place) / "store") as store:
        drawn(store, DOCUMENTS * times)
        stream = np.random.default_rng(1).permutation(len(store.lengths))
        with ShardWriter(Path(place), 4096, 0, np.zeros((50, 2), np.int16)) as writer:
            for found in fit.best_fit(stream, store.lengths, 4096):
                writer.write(found, store)
                status = Path("/proc/self/status").read_text("utf-8")
                peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))
    print(json.dumps({"documents": len(store.lengths), "tokens": int(store.lengths.sum()), "mb": peak / 1e3}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(int(sys.argv[2]))
    else:
        speed(Path(sys.argv[1]) if sys.argv[1:] else None)
        for times in ("1", "10"):
            subprocess.run([sys.executable, __file__, "memory", times], check=True)  # noqa: S603
