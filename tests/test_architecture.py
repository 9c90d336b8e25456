"""The shape of the house: arrows between rooms, budgets of modules and functions, no drawers."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "polyclinic"
DRAWERS = {"utils", "common", "helpers", "misc"}
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 9

# The ground floor, each room with what it may import.
GROUND = {
    "errors": set(),
    "progress": set(),
    "versions": set(),
    "records": set(),
    "figures": set(),
    "languages": {"errors"},
    "strict_yaml": {"errors"},
    "runs": {"errors"},
    "sections": set(),
    "corpus_section": {"sections"},
    "recipe": {"errors", "strict_yaml", "sections", "corpus_section"},
    "clades": {"errors", "languages"},
    "families": {"errors", "languages", "clades", "strict_yaml"},
    "baselines": {"errors", "families", "recipe", "sections"},
    "prompts": {"errors", "records"},
    "markup": {"languages"},
    "intervals": set(),
}
FLOOR = set(GROUND)
STAGES = {"corpus", "upcycle", "train", "analyse", "evaluate"}
ALLOWED = {
    **GROUND,
    "corpus": FLOOR,
    "moe": FLOOR,
    "upcycle": FLOOR | {"moe"},
    "analyse": FLOOR | {"moe"},
    "evaluate": FLOOR | {"moe"},
    "train": FLOOR | {"moe", "corpus.pack.pack", "corpus.pack.shards"},
    "page": FLOOR | {"corpus"},
    "ablation": FLOOR | {"ablation_report", "corpus", "evaluate", "train"},
    "ablation_report": FLOOR,
    "summary": FLOOR | STAGES | {"page", "ablation_report"},
    "journey": FLOOR | STAGES | {"moe", "summary", "ablation"},
    "console": {"progress"},
    "arguments": {"errors", "languages"},
    "listing": {"families", "languages"},
    "options": FLOOR,
    "commands": FLOOR | STAGES | {"moe", "journey", "console", "listing", "options"},
    "commands_corpus": FLOOR | {"commands", "console", "corpus", "options"},
    "commands_train": FLOOR | {"commands", "console", "journey", "moe", "options", "train", "upcycle"},
    "commands_analyse": FLOOR | {"analyse", "commands", "console", "corpus", "moe", "page", "train"},
    "commands_evaluate": FLOOR | {"commands", "console", "corpus", "evaluate", "moe", "page"},
    "cli": {
        *("arguments", "commands", "commands_analyse", "commands_corpus", "commands_evaluate", "commands_train"),
        "errors",
    },
}


def room(path: Path, source: Path) -> str:
    return path.relative_to(source).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Return what a module imports of ours, as `room` and `room.module`, lazy imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inside = node.module == "polyclinic" or node.module.startswith("polyclinic.")
            deep = [f"{node.module}.{a.name}" for a in node.names] if inside else []
            names = [n for n in deep if (SOURCE / Path(*n.split(".")[1:])).exists() or _is_module(n)] or [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.removeprefix("polyclinic.") for n in names if n.startswith("polyclinic.")}
    return found


def _is_module(name: str) -> bool:
    return (SOURCE / Path(*name.split(".")[1:])).with_suffix(".py").exists()


def forbidden(source: Path) -> list[str]:
    """Return every import that the arrows do not allow."""
    out = []
    for path in sorted(source.rglob("*.py")):
        here = room(path, source)
        if here == "__init__":
            continue
        for target in sorted(imports(path)):
            there = target.split(".")[0]
            if there != here and there not in ALLOWED[here] and target not in ALLOWED[here]:
                out.append(f"{path.relative_to(source)} imports {target}")
    return out


def test_every_import_follows_an_arrow() -> None:
    assert forbidden(SOURCE) == []


def test_every_room_is_on_the_plan() -> None:
    rooms = {room(p, SOURCE) for p in SOURCE.rglob("*.py")} - {"__init__"}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("corpus/dedup/dedup.py", "from polyclinic.moe import attach"),
        ("moe/forward.py", "import polyclinic.corpus.pack.pack"),
        ("evaluate/loss.py", "from polyclinic.corpus import build"),
        ("records.py", "from polyclinic import recipe"),
        ("journey.py", "def lazily():\n    from polyclinic import cli"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, where: str, line: str) -> None:
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((SOURCE / where).read_text("utf-8") + "\n" + line + "\n", "utf-8")
    assert [f for f in forbidden(tmp_path) if f.startswith(where)]


def test_arrows_have_no_cycle() -> None:
    def above(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, " -> ".join((*seen, name))
        for target in ALLOWED[name]:
            above(target.split(".")[0], (*seen, name))

    for name in ALLOWED:
        above(name, ())


def test_modules_and_functions_stay_within_their_budgets() -> None:
    over = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text("utf-8")
        if len(text.splitlines()) > MODULE_LINES:
            over.append(f"{path.name} has {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                count = len(node.args.args) + len(node.args.kwonlyargs)
                over += [f"{path.name}:{node.name}"] * (lines > FUNCTION_LINES or count > PARAMETERS)
    assert over == []


def test_there_are_no_drawers_and_no_logic_in_init() -> None:
    modules = list(SOURCE.rglob("*.py"))
    assert not [p for p in modules if p.stem in DRAWERS]
    for path in (p for p in modules if p.name == "__init__.py"):
        body = ast.parse(path.read_text("utf-8")).body
        assert not [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.For, ast.While))], path


def test_unsafe_calls_stand_nowhere() -> None:
    words = ("trust_remote_code=True", "torch.load(", "pickle.", "shell=True", "os.system(")
    hits = [f"{p.name}: {w}" for p in SOURCE.rglob("*.py") for w in words if w in p.read_text("utf-8")]
    assert hits == []
