"""Rewriting against a real engine, `transformers serve` with a tiny model: all rows are accounted for."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from polyclinic.cli import main
from polyclinic.runs import read_json

PORT = 18471
NEEDED = ("fastapi", "uvicorn", "openai")

pytestmark = pytest.mark.soak


def up() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_a_real_engine_is_asked_and_every_passage_is_kept_or_dropped_with_a_reason(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        pytest.skip("transformers serve is not installed")
    assert main(["run", "recipes/starter.yaml", "--out", str(tmp_path / "run")]) == 0
    model = tmp_path / "run" / "train"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--port", str(PORT)]
    with (tmp_path / "log").open("w") as log:
        engine = subprocess.Popen([*command, "--device", "cpu"], stdout=log, stderr=log, env=os.environ)
        try:
            deadline = time.monotonic() + 300
            while not up() and time.monotonic() < deadline:
                time.sleep(1)
            rewrite(tmp_path, str(model))
        finally:
            engine.terminate()
            engine.wait(30)


def rewrite(tmp_path: Path, model: str) -> None:
    records = [{"id": str(n), "language": "en", "text": f"Fever number {n}. Drink water and rest."} for n in range(6)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    recipe = Path("recipes/starter.yaml").read_text("utf-8")
    recipe = recipe.replace("    - starter: true\n  exams", "    - path: a.jsonl\n  exams", 1)
    endpoint = f"{{base_url: 'http://127.0.0.1:{PORT}/v1', model: '{model}', max_tokens: 40, timeout_s: 120.0}}"
    recipe = recipe.replace(
        "corpus:\n", f"corpus:\n  root: {tmp_path}\n  dedup: null\n  rewrite: {{endpoint: {endpoint}}}\n", 1
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert main(["corpus", "build", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]) == 0
    card = read_json(tmp_path / "out" / "corpus" / "card.json")
    dropped = sum(n for reason, n in card["counts"].items() if reason.startswith("dropped"))
    kept = sum(row.get(split, 0) for row in card["languages"].values() for split in ("train", "held_out", "validation"))
    assert card["counts"]["rewrite: requests"] >= 6
    assert kept + dropped == 6
