"""What reads languages, recipes, corpora and reports works on a base install, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "polyclinic"

# A finder at the head of the path that lets nothing of torch's world in.
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "accelerate"):
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocked())
"""
TRY = """
import importlib, json
faults = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as err:
        faults[name] = str(err)
print(json.dumps(faults))
"""
LOADED = """
import json, sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from polyclinic.cli import main
with redirect_stdout(StringIO()) as out, suppress(SystemExit):
    main(sys.argv[1:])
assert out.getvalue()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def python(code: str, *arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def torch_free_modules() -> list[str]:
    """Return the ground floor, the corpus, and the report of every stage."""
    paths = [
        *SOURCE.glob("*.py"),
        *SOURCE.glob("corpus/**/*.py"),
        *SOURCE.glob("*/report.py"),
        *SOURCE.glob("*/report/*.py"),
    ]
    names = {".".join(("polyclinic", *p.relative_to(SOURCE).with_suffix("").parts)) for p in paths}
    return sorted(name.removesuffix(".__init__") for name in names)


def test_the_list_of_torch_free_modules_holds_those_of_the_design() -> None:
    named = "errors languages families records prompts recipe runs journey cli markup page summary corpus.build"
    reports = [f"{stage}.report" for stage in ("corpus.card", "upcycle", "train", "analyse", "evaluate")]
    assert {f"polyclinic.{name}" for name in [*named.split(), *reports]} <= set(torch_free_modules())


def test_torch_free_modules_import_where_torch_is_not_installed() -> None:
    assert json.loads(python(BLOCK + TRY, *torch_free_modules())) == {}


def test_the_block_is_seen_by_a_module_that_needs_torch() -> None:
    faults = json.loads(python(BLOCK + TRY, "polyclinic.moe.router", "polyclinic.train.trainer"))
    assert set(faults) == {"polyclinic.moe.router", "polyclinic.train.trainer"}


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["languages"], ["--version"], ["evaluate", "list"]], ids=" ".join
)
def test_a_command_that_computes_nothing_loads_nothing_heavy(argv: list[str]) -> None:
    loaded = set(json.loads(python(LOADED, *argv)))
    assert "polyclinic" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "pyarrow", "numpy", "pandas", "tokenizers", "lm_eval"})


def test_a_corpus_is_built_and_inspected_where_torch_is_not_installed(tmp_path: Path) -> None:
    recipe = "name: a\ncorpus: {languages: [no], texts: [{starter: true}]}\nbase: {checkpoint: x}\ntrain: {steps: 1}\n"
    (tmp_path / "r.yaml").write_text(recipe)
    act = BLOCK + "from polyclinic.cli import main\nsys.exit(main(sys.argv[1:]))"
    assert "card.md" in python(act, "corpus", "build", "r.yaml", "--out", "out", folder=tmp_path)
    assert "Norwegian" in python(act, "corpus", "inspect", "out", folder=tmp_path)
