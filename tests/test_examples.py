"""The journey of the README runs as it stands, on a recipe made small."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TINY = """
name: tiny
corpus:
  languages: ["en", "fr", "ar"]
  texts: [{starter: true}]
  exams: [{starter: true, splits: ["test"]}]
  pack_tokens: 64
base:
  from_scratch: {vocab_size: 400, hidden_size: 32, intermediate_size: 48, num_layers: 2, num_heads: 2, num_kv_heads: 1,
    steps: 4, batch_packs: 2, threads: 1}
upcycle: {last_layers: 1}
train: {steps: 4, batch_packs: 2, threads: 1}
analyse: {shuffles: 10}
evaluate: {max_questions: 2}
"""


@pytest.mark.soak
def test_the_journey_script_runs_to_the_proof(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY, "utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bash = shutil.which("bash") or "bash"
    done = subprocess.run(
        [bash, str(ROOT / "examples" / "journey.sh"), str(recipe), str(tmp_path / "run")],
        env={**os.environ, "PATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert "mixture_difference" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_readme_shows_the_lines_of_the_script() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    script = (ROOT / "examples" / "journey.sh").read_text("utf-8")
    commands = [line.split("#")[0].strip() for line in script.splitlines() if line.startswith("polyclinic ")]
    shown = [c.replace('"$recipe"', "recipes/starter.yaml").replace('"$out"', "runs/starter") for c in commands]
    shown = [c.replace('"$out/', "runs/starter/").replace('"', "") for c in shown]
    assert [c for c in shown if c not in readme] == []
