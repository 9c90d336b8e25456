"""The command line: what a shell sees of every ending, and a person of the languages."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import polyclinic
from polyclinic import cli, commands, errors
from polyclinic.cli import main
from polyclinic.corpus.build import read_documents
from polyclinic.corpus.pack import pack as packing
from polyclinic.corpus.pack.shards import Shards
from polyclinic.families import fifty, load_preset
from polyclinic.progress import Silent

NO_SCORES = {
    "models": ["model"], "sheets": [], "sensitivity": {}, "parts": [], "comparison": [], "loss": {"model": {}},
    "missing": {"nothing": [], "derived only": []},
}  # fmt: skip
RECIPE = "name: small\ncorpus:\n  texts: [{starter: true}]\nbase: {checkpoint: x}\ntrain: {steps: 1}\n"


@pytest.fixture(autouse=True)
def folder(inside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("POLYCLINIC_DEBUG", raising=False)
    return inside


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Return the code of a command whose work ends with an error."""

    def work(arguments: Any) -> int:
        raise error

    monkeypatch.setattr(commands, "cmd_languages", work)
    return main(["languages"])


# Endings


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("PolyclinicError", 1), ("UsageError", 2), ("RecipeError", 3), ("DataError", 3), ("CheckpointError", 4),
        ("DiskError", 5), ("BusyError", 6), ("MissingDependencyError", 6),
    ],
)  # fmt: skip
def test_an_error_is_its_line_and_its_code(
    name: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, getattr(errors, name)("here", "what\n  is wrong", "try this")) == code
    assert capsys.readouterr().err == "error: here: what is wrong; try this\n"


def test_a_full_disk_is_5_and_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "run/x.bin")) == 5
    assert capsys.readouterr().err.startswith("error: run/x.bin: no space left on device; ")
    assert ending(monkeypatch, RuntimeError("Error while serializing: I/O error: ... (os error 28)")) == 5
    assert capsys.readouterr().err.startswith("error: polyclinic: no space left on device; ")


def test_a_fault_of_ours_is_1_and_one_line_unless_someone_debugs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, KeyError("a\nb" * 999)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: polyclinic: KeyError: ")
    monkeypatch.setenv("POLYCLINIC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError())


def test_control_c_is_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped; run the same command to go on\n"


def test_sigterm_is_143_and_unwinds(monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def work(arguments: Any) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            unwound.append(True)
        return 0

    monkeypatch.setattr(commands, "cmd_languages", work)
    with pytest.raises(SystemExit) as caught:
        main(["languages"])
    assert caught.value.code == 143
    assert unwound


@pytest.mark.parametrize(
    ("word", "unbuffered"),
    [("languages", ""), ("languages", "1"), ("--version", ""), ("--version", "1"), ("--help", "")],
)
def test_a_full_stdout_is_5_and_one_line(word: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "polyclinic.cli", word]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (5, 1)


def test_a_run_folder_in_use_is_6_and_names_its_holder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    hold = "import sys; from pathlib import Path; from polyclinic.runs import RunFolder\n"
    hold += "with RunFolder.open(Path('out')): print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", hold], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 6
        other.kill()
    assert f"out: in use by pid {other.pid} on " in capsys.readouterr().err
    assert [p.name for p in (folder / "out").iterdir()] == ["run.lock"]


@pytest.mark.parametrize("out", ["notes.txt", "notes.txt/run"])
def test_a_file_where_a_run_should_go_is_5_and_stays(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    (folder / "notes.txt").write_text("mine")
    assert main(["corpus", "build", "r.yaml", "--out", out]) == 5
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "notes.txt").read_text() == "mine"


# What it says


def every_command() -> list[list[str]]:
    """Return every command and group of the grammar, as words."""
    found: list[list[str]] = []
    left: list[tuple[list[str], Any]] = [([], cli.build_parser())]
    while left:
        words, parser = left.pop()
        found.append(words)
        for action in parser._actions:
            if isinstance(action.choices, dict):
                left += [([*words, name], inner) for name, inner in action.choices.items()]
    return sorted(found)


@pytest.mark.parametrize("words", every_command(), ids=lambda words: " ".join(words) or "polyclinic")
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr()
    assert said.out.startswith(" ".join(["usage: polyclinic", *words]))
    assert said.err == ""


@pytest.mark.parametrize("words", every_command(), ids=lambda words: " ".join(words) or "polyclinic")
def test_every_command_that_works_takes_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser: Any = cli.build_parser()
    for word in words:
        (choices,) = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
        parser = choices[word]
    acts = not [a for a in parser._actions if isinstance(a.choices, dict)]
    assert ("--json" in parser._option_string_actions) is acts


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"polyclinic {polyclinic.__version__}\n"


def test_languages_as_json_are_the_languages_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["languages"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sorted(row["code"] for row in found) == sorted(fifty())
    for row, line in zip(found, printed[1:], strict=False):
        assert line.startswith(row["code"] + " ")
        assert row["native name"] in line
        assert line.rstrip("\u2069").endswith(row["expert"])


def test_a_preset_may_be_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("name: mine\nfamilies: [{name: a, languages: [no]}, {name: b, languages: [ja]}]")
    assert main(["languages", "--preset", "mine.yaml", "--json"]) == 0
    assert [row["expert"] for row in json.loads(capsys.readouterr().out)] == ["0 a", "1 b"]


def test_check_prints_the_resolved_recipe_as_one_json_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    assert main(["check", "r.yaml", "--set", "train.steps=9", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["train"]["steps"], printed["upcycle"]["families"]) == (9, "balanced")
    assert list(folder.iterdir()) == [folder / "r.yaml"]


def test_a_built_corpus_is_not_built_again_and_can_be_inspected(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "r.yaml").write_text(RECIPE.replace("texts", "languages: [no, sw]\n  texts"))
    assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 0
    before = (folder / "out" / "corpus" / "manifest.json").stat().st_mtime_ns
    assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 0
    assert (folder / "out" / "corpus" / "manifest.json").stat().st_mtime_ns == before
    capsys.readouterr()
    for name in ("out", "out/corpus"):
        assert main(["corpus", "inspect", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((folder / "out/corpus/card.json").read_text())
    assert main(["corpus", "inspect", "elsewhere"]) == 3


def test_training_is_done_again_where_the_checkpoint_at_its_path_was_exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop itself is a stand-in: what is asked is only whether it was called."""
    calls = []

    def train_mixture(section: Any, checkpoint: Path, packs: Path, *_: Any) -> dict[str, Any]:
        calls.append((checkpoint / "model.safetensors").read_bytes())
        return {}

    monkeypatch.setitem(sys.modules, "polyclinic.train.run", SimpleNamespace(train_mixture=train_mixture))
    for name in ("packs/packs.json", "dense/model.safetensors"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"one")
    for weights in (b"one", b"one", b"two"):
        (folder / "dense" / "model.safetensors").write_bytes(weights)
        assert main(["train", "run", "dense", "--packs", "packs", "--out", "out", "--steps", "1"]) == 0
    assert calls == [b"one", b"two"]


@pytest.mark.parametrize(
    ("stage", "file", "result"),
    [
        ("analyse", "routing.json", {"information": {"first_pick": {"I(E;L)": {"layers": []}}}}),
        ("evaluate", "scores.json", NO_SCORES),
    ],
)
def test_a_stage_alone_is_done_again_where_the_checkpoint_at_its_path_was_exchanged(
    stage: str, file: str, result: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage itself is a stand-in, as above."""
    calls = []

    def run(section: Any, *rest: Any) -> dict[str, Any]:
        (out,) = [value for value in rest if isinstance(value, Path) and value.name == f".work-{stage}"]
        (out / file).write_text(json.dumps(result))
        calls.append(Path("dense/model.safetensors").read_bytes())
        return {}

    (folder / "r.yaml").write_text(RECIPE.replace("texts", "languages: [no]\n  texts"))
    assert main(["corpus", "build", "r.yaml", "--out", "built"]) == 0
    monkeypatch.setattr(f"polyclinic.{stage}.run.run", run)
    monkeypatch.setattr("polyclinic.evaluate.run.losses", lambda *_: {})
    monkeypatch.setattr("polyclinic.commands_analyse._page", lambda *_: Path("report.html"))
    (folder / "dense").mkdir()
    for weights in (b"one", b"one", b"two"):
        (folder / "dense" / "model.safetensors").write_bytes(weights)
        assert main([stage, "run", "dense", "--corpus", "built", "--out", "out", "--json"]) == 0
    assert calls == [b"one", b"two"]


# What each expert carries of a corpus


def packed(folder: Path, **tokens: int) -> Path:
    """Write what the packed step of a run says of its tokens."""
    (folder / "packed").mkdir(parents=True)
    (folder / "packed" / "packs.json").write_text(json.dumps({"tokens": tokens}))
    return folder


def carried(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """Return what `languages` says as JSON."""
    assert main(["languages", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_languages_of_a_run_say_what_each_expert_carries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed(folder / "run", en=600, zh=100, sv=300)
    found = carried(capsys, "--corpus", "run")
    assert (found["preset"], found["unit"]) == ("balanced", "tokens")
    assert {r["code"]: r["tokens"] for r in found["languages"] if r["tokens"]} == {"en": 600, "zh": 100, "sv": 300}
    assert [r["tokens"] for r in found["experts"]] == [600, 100, 0, 0, 300, 0, 0]
    assert [r["preset"] for r in found["beside"]][:2] == ["balanced", "apollo"]
    assert main(["languages", "--corpus", "run"]) == 0
    printed = capsys.readouterr().out
    assert "heaviest expert carries 4.20 x the mean (0 North Sea Germanic)" in printed.splitlines()
    assert "placed by lineage beside da, no" in printed


def test_families_recomputed_for_a_run_are_saved_as_a_preset_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(folder / "run", en=600, zh=100, sv=300, no=0)
    found = carried(capsys, "--corpus", "run", "--recompute", "--experts", "3", "--save", "mine.yaml")
    assert [(r["tokens"], r["languages"]) for r in found["experts"]] == [(600, ["en"]), (300, ["sv"]), (100, ["zh"])]
    assert [r["preset"] for r in found["beside"]][:2] == ["mine", "balanced"]
    assert [(r["code"], r["placed"]) for r in found["languages"]][:3] == [(c, "listed") for c in ("en", "sv", "zh")]
    saved = load_preset(folder / "mine.yaml")
    assert [family.languages for family in saved.families] == [("en",), ("sv",), ("zh",)]
    assert saved.loads == {"en": 600 / 1e6, "sv": 300 / 1e6, "zh": 100 / 1e6}
    again = carried(capsys, "--corpus", "run", "--preset", "mine.yaml")
    assert again["experts"] == found["experts"]
    assert sorted(p.name for p in folder.iterdir()) == ["mine.yaml", "run"]


def test_families_are_recomputed_for_as_many_experts_as_the_preset_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(folder / "run", **dict.fromkeys(fifty(), 5))
    for name in ("balanced", "glottolog"):
        found = carried(capsys, "--corpus", "run", "--recompute", "--preset", name)
        assert len(found["experts"]) == load_preset(name).num_experts
        assert found["preset"] == "recomputed"


def test_a_corpus_without_packs_is_counted_in_characters_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "r.yaml").write_text(RECIPE.replace("texts", "languages: [no, sw]\n  texts"))
    assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 0
    capsys.readouterr()
    card = json.loads((folder / "out/corpus/card.json").read_text())["languages"]
    found = carried(capsys, "--corpus", "out", "no", "sw")
    assert found["unit"] == "characters"
    assert [r["characters"] for r in found["languages"]] == [card["no"]["characters"], card["sw"]["characters"]]
    assert main(["languages", "--corpus", "out"]) == 0
    printed = capsys.readouterr().out
    assert "tokens" not in printed.splitlines()[0]
    assert printed.splitlines()[-1].startswith("Characters of all text")


RECOMPUTE = ["--corpus", "run", "--recompute"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--corpus", "elsewhere"], 3, "elsewhere: holds no built corpus; name a corpus or run folder"),
        (["--corpus", "mine.yaml"], 3, "mine.yaml: holds no built corpus"),
        (["--corpus", "empty"], 3, "empty/packed/packs.json: counts no text"),
        (["--corpus", ""], 2, "'' is not the name of a folder"),
        (["--recompute"], 2, "--recompute: means nothing without --corpus"),
        (["--corpus", "run", "--experts", "2"], 2, "--experts: means nothing without --recompute"),
        (["--corpus", "run", "--save", "new.yaml"], 2, "--save: means nothing without --recompute"),
        (RECOMPUTE, 2, "--experts: 7 experts for 2 languages with text"),
        ([*RECOMPUTE, "--experts", "3"], 2, "--experts: 3 experts for 2 languages with text"),
        ([*RECOMPUTE, "--experts", "0"], 2, "'0' is not a whole number of at least 1"),
        ([*RECOMPUTE, "--experts", "2", "--save", "mine.yaml"], 2, "mine.yaml: is there already"),
        ([*RECOMPUTE, "--experts", "2", "--save", "run"], 2, "run: is there already"),
        ([*RECOMPUTE, "--experts", "2", "--save", "gone"], 2, "gone: is there already"),
        ([*RECOMPUTE, "--experts", "2", "--save", "a/b.yaml"], 5, "no such file"),
        (["--corpus", "run", "xq"], 2, "unknown language 'xq'"),
        (["--corpus", "run", "--preset", "balancde"], 2, "did you mean balanced?"),
    ],
)
def test_what_cannot_be_counted_or_would_be_lost_is_refused_in_one_line(
    options: list[str], code: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(folder / "run", en=2, zh=1, sw=0)
    packed(folder / "empty", en=0)
    (folder / "mine.yaml").write_text("mine")
    (folder / "gone").symlink_to("nowhere")
    before = sorted(folder.rglob("*"))
    assert main(["languages", *options]) == code
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err
    assert sorted(folder.rglob("*")) == before
    assert (folder / "mine.yaml").read_text() == "mine"


def test_a_new_language_is_built_packed_and_counted_with_no_file_changed_but_the_preset(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.yaml").write_text("name: mine\nfamilies: [{name: a, languages: [en]}, {name: b, languages: [ro]}]")
    texts = {"ro": "Spală-te pe mâini înainte de masă", "en": "Wash your hands", "fr": "Lavez bien vos mains"}
    records = [{"language": code, "text": text, "source": "s", "licence": "CC0-1.0"} for code, text in texts.items()]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    section = "languages: [ro, en, fr]\n  held_out: 0.0\n  check_language: report\n  texts: [{path: t.jsonl}]"
    (folder / "r.yaml").write_text(RECIPE.replace("texts: [{starter: true}]", section))
    assert main(["corpus", "build", "r.yaml", "--out", "out"]) == 0

    words = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))  # noqa: S106 - no password, the word for any word
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    packs, documents = folder / "out" / "packed", read_documents(folder / "out" / "corpus")
    packs.mkdir()
    expert_of = load_preset("mine.yaml").expert_of
    packing.pack(documents, words, packing.Specials(1, 2), expert_of, packs, packing.Packing(16, "all", 0), Silent())
    row = Shards(packs)[0]
    codes = json.loads((packs / packing.META).read_text())["languages"]
    places = list(zip(row["language_ids"].tolist(), row["family_ids"].tolist(), strict=True))
    # Words and an end; French, which the preset does not list, stands beside Romanian.
    counts = {code: len(text.split()) + 1 for code, text in texts.items()}
    for code, expert in (("en", 0), ("ro", 1), ("fr", 1)):
        assert places.count((codes.index(code), expert)) == counts[code]

    capsys.readouterr()
    found = carried(capsys, "--preset", "mine.yaml", "--corpus", "out")
    assert [(r["tokens"], r["languages"]) for r in found["experts"]] == [(4, ["en"]), (12, ["ro", "fr"])]
    placed = {r["code"]: r["placed"] for r in found["languages"]}
    assert (placed["ro"], placed["fr"][:27]) == ("listed", "placed by lineage beside ro")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_the_first_says_what_all_have_read(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert main(["check", "absent.yaml"]) == 3
    assert capsys.readouterr().err.count("error: ") == lines
