"""Peak memory of conversion and proof on a checkpoint of a published model's shape, random weights.

    python benchmarks/upcycle_memory.py FOLDER [--base Qwen/Qwen2-7B]

Writes the dense checkpoint into FOLDER (15 GB for 7B, and 20 GB for the mixture; delete it afterwards),
then converts it in one process and proves it in another, and prints what each held at most: the
resident set, pages of mapped files included. The bound is twice the largest tensor plus 500 MB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

MEGA = 1e6
SHARD = 4_000_000_000


def make_dense(folder: Path, base: str) -> None:
    """Write a random bf16 checkpoint with the figures of a published model."""
    import torch
    from safetensors.torch import save_file

    from polyclinic.moe.skeleton import expected_tensors, skeleton

    config = json.loads((files("polyclinic") / "data/bases.json").read_text("utf-8"))["bases"][base]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    block = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)
    shard: dict[str, Any] = {}
    index: dict[str, str] = {}
    expected = list(expected_tensors(skeleton(config, base)).items())
    for number, (name, shape) in enumerate(expected):
        size = torch.Size(shape).numel()
        value = block.roll(number)[:size] if size < len(block) else block.repeat(-(-size // len(block)))[:size]
        shard[name] = value.reshape(shape).clone() + (1.0 if name.endswith("norm.weight") else 0.0)
        if number + 1 == len(expected) or sum(t.nbytes for t in shard.values()) > SHARD:
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def convert(dense: Path, out: Path) -> dict[str, Any]:
    """Do what `upcycle build` does, without its proof."""
    from polyclinic.moe.blueprint import moe_config
    from polyclinic.moe.checkpoint import read_config
    from polyclinic.moe.convert import headers, plan_tensors, write_tensors
    from polyclinic.moe.skeleton import checked_files
    from polyclinic.recipe import UpcycleSection
    from polyclinic.upcycle.build import design, family_facts

    made = design(read_config(dense), dense, UpcycleSection(families="apollo"), 0)
    found = checked_files(dense)
    planned = plan_tensors(headers(found), made.config, made.blueprint, made.mixture)
    out.mkdir()
    write_tensors(planned, found, out, 0, {})
    (out / "config.json").write_text(json.dumps(moe_config(made.config, made.blueprint, made.mixture)))
    (out / "polyclinic.json").write_text(json.dumps(family_facts(made.preset, ["en"], made.mixture)))
    return {"largest": max(p.num_bytes for p in planned), "bytes": sum(p.num_bytes for p in planned)}


def prove(dense: Path, out: Path) -> dict[str, Any]:
    """Do what `upcycle verify` does."""
    from polyclinic.moe.verify import verify

    return verify(dense, out, 0)


def main() -> None:
    """Run each part in a process of its own and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="Qwen/Qwen2-7B")
    parser.add_argument("--part", choices=("make", "convert", "prove"))
    arguments = parser.parse_args()
    dense, out = arguments.folder / "dense", arguments.folder / "moe"
    if arguments.part:
        started = time.perf_counter()
        work = {"make": lambda: make_dense(dense, arguments.base), "convert": lambda: convert(dense, out)}
        facts = work.get(arguments.part, lambda: prove(dense, out))() or {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({**facts, "peak": peak, "seconds": time.perf_counter() - started}))
        return
    for part in ("make", "convert", "prove"):
        if part == "make" and dense.is_dir():
            continue
        command = [sys.executable, __file__, str(arguments.folder), "--base", arguments.base, "--part", part]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        facts = json.loads(done.stdout.splitlines()[-1])
        line = f"{part:<8} peak {facts.pop('peak') / MEGA:,.0f} MB, {facts.pop('seconds'):.0f} s"
        if part == "convert":
            line += f"; bound {(2 * facts['largest']) / MEGA + 500:,.0f} MB, mixture {facts['bytes'] / 1e9:.2f} GB"
        print(line, facts if part == "prove" else "", flush=True)


if __name__ == "__main__":
    main()
