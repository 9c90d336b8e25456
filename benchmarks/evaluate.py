"""Time of scoring exams, ours against lm-eval's own class for transformers models, in turn in one process.

    python benchmarks/evaluate.py EXAM.jsonl [--items 400] [--rounds 3] [--hidden 192] [--layers 6] [--threads 1]
        [--shots 0] [--dense]

The model has random weights and a vocabulary of 4,096 trained on the exam's text, upcycled in its last two
layers unless --dense. `option` scores the full text of each option after the question, `letter` the letters of
listed options, and --shots puts the same examples before every question. Each round runs ours and lm-eval's at
each batch size once; CPU seconds of all threads, and seconds of the clock. The scores of both are compared.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer

from polyclinic.evaluate.backends.local import LocalModel, load_tokenizer
from polyclinic.evaluate.prompting import block
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.moe.checkpoint import load_model
from polyclinic.recipe import ScratchSection, UpcycleSection
from polyclinic.records import Question
from polyclinic.train.base import new_model, train_tokenizer
from polyclinic.upcycle.build import build

SIZES = (1, 2, 4, 8, 16, 32, 64)


def make(folder: Path, texts: list[str], hidden: int, layers: int, language: str, dense: bool) -> Path:
    (folder / "dense").mkdir(parents=True)
    train_tokenizer(texts, 4096, folder / "dense")
    vocabulary = Tokenizer.from_file(str(folder / "dense" / "tokenizer.json"))
    sizes: dict[str, int] = {"hidden_size": hidden, "intermediate_size": hidden // 3 * 8, "num_layers": layers}
    section = ScratchSection(steps=1, num_heads=hidden // 32, num_kv_heads=2, **sizes)
    new_model(section, vocabulary, 1024, 0).save_pretrained(folder / "dense")
    if dense:
        return folder / "dense"
    (folder / "mixture").mkdir()
    build(folder / "dense", folder / "mixture", UpcycleSection(last_layers=2, noise=0.1), [language], seed=0)
    return folder / "mixture"


def requests(rows: list[dict[str, Any]], kind: str, shots: list[dict[str, Any]]) -> list[Instance]:
    """Return the choices of all rows, behind the same examples."""
    before = "".join("".join(request.args) + "\n\n" for shot in shots for request in requests([shot], kind, [])[:1])
    out = []
    for row in rows:
        options = tuple(row["options"].values())
        question = Question(
            row["id"], row["language"], row["source"], "", row["id"], "test", row["question"], options, (0,)
        )
        prompt, choices = block(question, PROTOCOLS["option"], ""), list(options)
        if kind == "letter":
            choices = list("ABCDEFGH"[: len(options)])
            head, _, tail = prompt.rpartition("\n")
            prompt = "\n".join([head, *(f"{a}. {b}" for a, b in zip(choices, options, strict=True)), tail])
        out += [Instance("loglikelihood", row, (before + prompt, f" {choice}"), i) for i, choice in enumerate(choices)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("exam", type=Path)
    for name, value in (("items", 400), ("rounds", 3), ("hidden", 192), ("layers", 6), ("threads", 1), ("shots", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--tokens", type=int, nargs="*", default=[1024], help="tokens of a batch of ours")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--kinds", nargs="*", default=["option", "letter"])
    given = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)
    rows = [json.loads(line) for line in given.exam.read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        texts = [" ".join([row["question"], *row["options"].values()]) for row in rows]
        checkpoint = make(Path(folder), texts, given.hidden, given.layers, rows[0]["language"], given.dense)
        ours = {f"ours, {n} tokens": LocalModel(checkpoint, batch_tokens=n) for n in given.tokens}
        stock = HFLM(load_model(checkpoint).eval(), tokenizer=load_tokenizer(checkpoint), device="cpu", batch_size=1)
        for kind in given.kinds:
            asked = requests(rows[: given.items], kind, rows[-given.shots :] if given.shots else [])
            compare(ours, stock, asked, given, kind)


def compare(ours: dict[str, LocalModel], stock: HFLM, asked: list[Instance], given: Any, kind: str) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    answers: dict[str, list[tuple[float, bool]]] = {}
    for _ in range(given.rounds):
        for name in [*ours, *(f"lm-eval, batch {size}" for size in given.sizes)]:
            model: Any = ours.get(name, stock)
            if name not in ours:
                stock.batch_size_per_gpu = int(name.split()[-1])
            clock, cpu = time.perf_counter(), time.process_time()
            answers[name] = model.loglikelihood(asked, disable_tqdm=True)
            found.setdefault(name, []).append((time.process_time() - cpu, time.perf_counter() - clock))
    names = list(found)
    apart = max(abs(a[0] - b[0]) for n in names for a, b in zip(answers[names[0]], answers[n], strict=True))
    same = all(a[1] == b[1] for n in names for a, b in zip(answers[names[0]], answers[n], strict=True))
    print(f"{kind}: {len(asked)} choices; scores differ by at most {apart:.1e} nats; greedy alike: {same}")
    for name, times in found.items():
        cpu, clock = zip(*times, strict=True)
        print(
            f"  {name:<20} cpu median {statistics.median(cpu):7.2f} least {min(cpu):7.2f}   "
            f"clock median {statistics.median(clock):7.2f} least {min(clock):7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
