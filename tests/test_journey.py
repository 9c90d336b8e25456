"""The whole walk: raw text to report, nothing twice, and what changed is done again and no more."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import small
from polyclinic.corpus.build import read_documents
from polyclinic.corpus.pack.pack import RECORDS
from polyclinic.corpus.tables import read_rows
from polyclinic.errors import DataError, PolyclinicError, RecipeError
from polyclinic.evaluate.opening import ANSWERS
from polyclinic.journey import Summary, check, run
from polyclinic.languages import language
from polyclinic.progress import Silent
from polyclinic.recipe import Recipe
from polyclinic.runs import digest as digest_of
from polyclinic.runs import read_json
from polyclinic.train.report import read_log
from polyclinic.versions import versions

STEPS = ["corpus", "tokenizer", "packed", "base", "upcycle", "train", "analyse", "evaluate"]
LOCK = "run.lock"  # written by every process that holds the folder

WALK_AGAIN = """
import json, sys
from pathlib import Path
from polyclinic.journey import run
from polyclinic.progress import Silent
from polyclinic.recipe import Recipe
did = run(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Silent()).did
print(json.dumps([did, sorted({"torch", "transformers", "lm_eval", "datasets"} & set(sys.modules))]))
"""


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """The smallest recipe, walked once."""
    out = tmp_path_factory.mktemp("journey") / "run"
    clock = time.process_time()
    summary = run(small.recipe(), out, Silent())
    assert time.process_time() - clock < 30
    return out, summary


@pytest.fixture
def copy(walk: tuple[Path, Summary], tmp_path: Path) -> Path:
    """A finished run of one's own to change."""
    return Path(shutil.copytree(walk[0], tmp_path / "run"))


def files(folder: Path) -> dict[str, Path]:
    """Return what a run made, without its locks and the answers it keeps for later."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p.name != LOCK}
    return {name: path for name, path in found.items() if not name.startswith(f"{ANSWERS}/")}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def walked_again(folder: Path, recipe: Recipe | None = None) -> list[str]:
    return run(recipe or small.recipe(), folder, Silent()).did


def walked_apart(folder: Path, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Walk in a process of its own; returns the steps done and the heavy packages it imported."""
    command = [sys.executable, "-c", WALK_AGAIN, recipe.model_dump_json(), str(folder)]
    did, heavy = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return did, heavy


def changed(section: str, **values: Any) -> Recipe:
    """Return the small recipe with some values of one section changed."""
    given = small.recipe().model_dump(exclude_unset=True)
    return small.recipe(**{section: {**given[section], **values}})


def test_a_recipe_walks_to_a_report(walk: tuple[Path, Summary]) -> None:
    folder, summary = walk
    assert summary.did == STEPS
    assert summary.report == folder / "report.html"
    assert {p.name for p in folder.iterdir()} == {*STEPS, ".shards", ANSWERS, "report.html", "manifest.json", LOCK}


def test_the_manifests_name_every_file_by_its_digest(walk: tuple[Path, Summary]) -> None:
    folder = walk[0]
    whole = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert whole["steps"] == {name: digest(folder / name / "manifest.json") for name in STEPS}
    assert whole["report"] == digest(folder / "report.html")
    assert Recipe.model_validate(whole["recipe"]) == small.recipe()
    assert whole["versions"] == versions()
    for name in STEPS:
        outputs = json.loads((folder / name / "manifest.json").read_text("utf-8"))["outputs"]
        assert outputs == {n: digest(p) for n, p in files(folder / name).items() if n != "manifest.json"}


def test_no_file_names_where_it_was_made(walk: tuple[Path, Summary]) -> None:
    folder = walk[0]
    assert not [name for name, path in files(folder).items() if str(folder).encode() in path.read_bytes()]


def test_walking_again_does_nothing(copy: Path) -> None:
    before = {name: path.stat().st_mtime_ns for name, path in files(copy).items()}
    assert walked_again(copy) == []
    assert {name: path.stat().st_mtime_ns for name, path in files(copy).items()} == before


def test_walking_again_costs_no_torch(copy: Path) -> None:
    assert walked_apart(copy, small.recipe()) == ([], [])


@pytest.mark.parametrize(
    ("section", "values", "did"),
    [
        ("train", {"steps": 4}, ["train", "analyse", "evaluate"]),
        ("train", {"loss_on": "answers"}, ["packed-answers", "train", "analyse", "evaluate"]),
        ("analyse", {"shuffles": 11}, ["analyse"]),
        ("evaluate", {"max_questions": 1}, ["evaluate"]),
        ("upcycle", {"top_k": 1}, ["upcycle", "train", "analyse", "evaluate"]),
        ("corpus", {"workers": 2}, []),
    ],
)
def test_a_change_redoes_what_depends_on_it_and_no_more(
    copy: Path, section: str, values: dict[str, Any], did: list[str]
) -> None:
    recipe = changed(section, **values)
    before = {name: path.stat().st_mtime_ns for name, path in files(copy).items()}
    assert walked_again(copy, recipe) == did
    for name, path in files(copy).items():
        if "/" in name and name.split("/")[0] not in did:
            assert path.stat().st_mtime_ns == before[name]
    whole = json.loads((copy / "manifest.json").read_text("utf-8"))
    assert set(did) <= set(whole["steps"])
    assert walked_again(copy, recipe) == []


@pytest.mark.parametrize(
    "name", ["corpus/questions.parquet", "tokenizer/tokenizer.json", "packed/packs.json", "train/model.safetensors"]
)
def test_a_lost_file_comes_back_with_its_step_alone(copy: Path, name: str) -> None:
    before = digest(copy / name)
    (copy / name).unlink()
    assert walked_again(copy) == [name.split("/")[0]]
    assert digest(copy / name) == before


def test_a_damaged_file_is_made_again(copy: Path) -> None:
    path = copy / "analyse" / "routing.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"1", b"2", 1))
    assert walked_again(copy) == ["analyse"]
    assert path.read_bytes() == before


def test_a_lost_report_is_written_again_from_what_is_finished(copy: Path) -> None:
    before = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    assert walked_again(copy) == []
    assert (copy / "report.html").read_bytes() == before


def test_the_same_recipe_gives_the_same_files(walk: tuple[Path, Summary], tmp_path: Path) -> None:
    """All but speeds, and what holds digests of them."""
    run(small.recipe(), tmp_path / "run", Silent())
    own, other = files(walk[0]), files(tmp_path / "run")
    assert own.keys() == other.keys()
    speedy = ("log.jsonl", "report.html", "manifest.json")
    for name in (n for n in own if not n.endswith(speedy)):
        assert digest(own[name]) == digest(other[name]), name


class _Page(HTMLParser):
    """Collects what a browser would fetch, the languages of the text, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.languages: dict[str, str] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.addresses += [values[name] for name in names if name in values]
        if tag == "bdi" and "lang" in values:
            self.languages[values["lang"].split("-")[0]] = values["dir"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_shows_every_language_in_its_direction_and_fetches_nothing(walk: tuple[Path, Summary]) -> None:
    html = walk[1].report.read_text("utf-8")
    page = _Page(html)
    for code in small.LANGUAGES:
        assert page.languages[code] == language(code).direction
        assert language(code).native_name in page.text
    assert page.languages["ar"] == "rtl"
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert "url(http" not in html
    assert "@import" not in html


def test_the_summary_is_the_headline_of_the_report(walk: tuple[Path, Summary]) -> None:
    folder, summary = walk
    scores = json.loads((folder / "evaluate" / "scores.json").read_text("utf-8"))
    routing = json.loads((folder / "analyse" / "routing.json").read_text("utf-8"))
    bits = [sum(r["bits_per_byte"] for r in scores["loss"][m].values()) / 4 for m in ("base", "mixture")]
    own = list(routing["own_expert"].values())
    values = [line.split("   ", 1)[1].strip() for line in summary.lines]
    assert values[0] == "4 languages, 7 family experts"
    assert values[1] == "{:.2f} base, {:.2f} mixture".format(*bits)
    assert values[3] == f"{100 * sum(own) / len(own):.0f} % of tokens"
    assert values[4] == str(summary.report)
    text = _Page(summary.report.read_text("utf-8")).text
    assert all(value in text for value in values[:4])


def test_the_base_of_a_finished_run_is_used_again(walk: tuple[Path, Summary], tmp_path: Path) -> None:
    recipe = small.recipe(base={"run": str(walk[0])})
    summary = run(recipe, tmp_path / "run", Silent())
    assert summary.did == STEPS
    for name in ("tokenizer/tokenizer.json", "packed/packs-00000.arrow", "train/model.safetensors"):
        assert digest(tmp_path / "run" / name) == digest(walk[0] / name)
    assert not list((tmp_path / "run" / "base").glob("*.safetensors"))
    assert walked_again(tmp_path / "run", recipe) == []


@pytest.fixture(scope="module")
def checkpoint_walk(walk: tuple[Path, Summary], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """A run whose base is a dense checkpoint, named by a relative path; run and recipe."""
    root = tmp_path_factory.mktemp("checkpoint")
    small.dense(root / "parent", walk[0] / "tokenizer", "qwen2")
    recipe = small.recipe(base={"checkpoint": "parent"})
    with contextlib.chdir(root):
        assert run(recipe, root / "run", Silent()).did == STEPS
    return root / "run", recipe


def test_a_dense_checkpoint_is_used_as_the_base(
    checkpoint_walk: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, recipe = checkpoint_walk
    config = json.loads((folder / "train" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "qwen2_moe"
    monkeypatch.chdir(folder.parent)
    assert walked_apart(folder, recipe) == ([], [])


def test_a_run_that_was_given_its_base_hands_it_on(checkpoint_walk: tuple[Path, Recipe], tmp_path: Path) -> None:
    """From any working folder."""
    folder, _ = checkpoint_walk
    again = small.recipe(base={"run": str(folder)}, train={"steps": 1, "threads": 1})
    assert run(again, tmp_path / "run", Silent()).did == STEPS
    shards = [digest(next((run / "upcycle").glob("*.safetensors"))) for run in (folder, tmp_path / "run")]
    assert shards[0] == shards[1]


def test_another_parent_of_the_same_name_is_another_base(
    walk: tuple[Path, Summary], checkpoint_walk: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, recipe = checkpoint_walk
    shutil.copytree(folder, tmp_path / "run")
    small.dense(tmp_path / "parent", walk[0] / "tokenizer", "qwen2", seed=1)
    monkeypatch.chdir(tmp_path)
    assert walked_again(tmp_path / "run", recipe) == STEPS[1:]


def test_a_base_that_went_away_is_said_in_one_line(checkpoint_walk: tuple[Path, Recipe], tmp_path: Path) -> None:
    shutil.copytree(checkpoint_walk[0] / "base", tmp_path / "old" / "base")
    manifest = tmp_path / "old" / "base" / "manifest.json"
    named = manifest.with_name("parent.json")
    before = digest(named)
    named.write_text(json.dumps({"path": str(tmp_path / "gone")}), "utf-8")
    told = json.loads(manifest.read_text("utf-8").replace(before, digest(named)))
    del told["sha256"]
    manifest.write_text(json.dumps({**told, "sha256": digest_of(told)}), "utf-8")
    with pytest.raises(DataError, match="gone is no longer there"):
        run(small.recipe(base={"run": str(tmp_path / "old")}), tmp_path / "run", Silent())


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        (changed("upcycle", families="balnced"), RecipeError, "balnced.*did you mean balanced"),
        (changed("upcycle", num_experts=5), RecipeError, "num_experts 5, but preset 'balanced' has 7"),
        (changed("upcycle", top_k=8), RecipeError, "top_k 8 of 7 experts"),
        (changed("upcycle", last_layers=9), RecipeError, "last_layers: 9 of"),
        (changed("train", trains="experts", family="Italik"), RecipeError, "no family 'Italik'; did you mean 'Italic'"),
        (changed("train", trains="experts", family=7), RecipeError, "train.family: there is no family '7'"),
        (
            changed("train", trains="experts", family="fr", routing="language"),
            RecipeError,
            "no text is of the languages of family 'fr'",
        ),
        (changed("corpus", languages=["en", "qqq"]), PolyclinicError, "qqq"),
        (changed("corpus", texts=[{"path": "nothing/*.jsonl"}]), DataError, "no file matches"),
        (changed("corpus", exams=[{"path": "exam.jsonl"}]), DataError, "exam.jsonl: no file matches"),
    ],
)
def test_what_would_fail_later_is_found_before_anything_is_written(
    recipe: Recipe, error: type[PolyclinicError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        check(recipe)
    assert "\n" not in str(caught.value)
    with pytest.raises(error):
        run(recipe, tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


def test_a_base_run_that_is_not_finished_is_refused(walk: tuple[Path, Summary], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished base"):
        run(small.recipe(base={"run": str(tmp_path)}), tmp_path / "run", Silent())


def test_a_good_recipe_passes_the_check() -> None:
    check(small.recipe())


def test_text_set_aside_for_validation_is_packed_apart_and_the_best_step_is_named(tmp_path: Path) -> None:
    """Of the starter corpus, a share of 0.3 sets one topic aside."""
    given = small.recipe().model_dump(exclude_unset=True)
    given["corpus"]["validation"] = 0.3
    given["base"]["from_scratch"]["validate_every"] = 4
    given["train"] |= {"validate_every": 3, "keep_best": True}
    out = tmp_path / "run"
    did = run(small.recipe(**given), out, Silent()).did
    assert did.count("packed-validation") == 1
    aside = {d.id for d in read_documents(out / "corpus") if d.split == "validation"}
    assert len(aside) == len(small.LANGUAGES)
    packed = {name: {row["id"] for row in read_rows(out / name / RECORDS)} for name in ("packed", "packed-validation")}
    assert packed["packed-validation"] == aside
    assert not packed["packed"] & aside
    for step, steps in (("base", [4, 6]), ("train", [3, 6])):
        found = [line for line in read_log(out / step) if "validation" in line]
        assert [line["step"] for line in found] == steps
        assert all(set(line["validation"]["languages"]) == set(small.LANGUAGES) for line in found)
    best = read_json(out / "train" / "manifest.json")["facts"]["best"]
    assert best["macro"] == min(line["validation"]["macro"] for line in found)
    assert "best" not in read_json(out / "base" / "manifest.json")["facts"]
    html = (out / "report.html").read_text("utf-8")
    assert "validation</text>" in html
    assert "Validation is the plain mean over languages" in html
