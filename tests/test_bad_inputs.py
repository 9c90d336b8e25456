"""Bad input: one line on stderr, the exit code, nothing written.

Each row is one of the list of bad inputs, by its number; 1 to 12 are faults of the command line,
13 to 26 faults of a recipe, 27 to 29 choices that mean nothing. Checkpoints are in test_bad_checkpoints.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polyclinic.cli import main

RECIPE = """\
name: good
corpus:
  texts: [{starter: true}]
base:
  from_scratch: {steps: 1}
train:
  steps: 1
"""
FAMILIES = """\
name: mine
families:
  - {name: north, languages: [en]}
  - {name: north, languages: [fr]}
"""
# Every level repeats the one below nine times: 9 ** 9 words if it were built.
BOMB = "a0: &a0 [word]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
LINE = re.compile(r"error: (?P<where>\S.*?): (?P<what>\S.*); (?P<try>\S.*)\n")
TRAIN = ["train", "run", "checkpoint", "--packs", "packs", "--out", "out"]
BUILD = ["upcycle", "build", "dense", "out"]


@pytest.fixture(autouse=True)
def folder(inside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside a good recipe."""
    Path("good.yaml").write_text(RECIPE)
    Path("families.yaml").write_text(FAMILIES)
    monkeypatch.delenv("POLYCLINIC_UNSET", raising=False)
    return inside


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {str(p): p.stat() for p in folder.rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in stats.items()}


def refusal(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command that must fail; returns its exit code and its one line."""
    before = listing(folder)
    code = main(argv)
    said = capsys.readouterr()
    assert said.out == ""
    assert LINE.fullmatch(said.err), said.err
    assert listing(folder) == before
    assert not (folder / "out").exists()
    return code, said.err


USAGE = {
    "1 unknown command": (["frobnicate"], "unknown command 'frobnicate'"),
    "1 unknown action": (["corpus", "bild"], "did you mean 'build'?"),
    "1 no command": ([], "a command is missing"),
    "2 misspelt option": (["languages", "--prest", "apollo"], "'--prest'; did you mean --preset?"),
    "2 misspelt required option": (["run", "good.yaml", "--ot", "out"], "'--ot'; did you mean --out?"),
    "3 missing required option": (["run", "good.yaml"], "polyclinic run: --out is missing; name a folder"),
    "3 missing required argument": (["run", "--out", "out"], "required: RECIPE"),
    "3 missing value": (["run", "good.yaml", "--out"], "--out: expected one argument"),
    "4 option twice": (["run", "good.yaml", "--out", "out", "--out", "other"], "--out stands twice"),
    "4 override twice": (["check", "good.yaml", "--set", "seed=1", "--set", "seed=2"], "seed stands twice"),
    "5 negative steps": ([*TRAIN, "--steps", "-5"], "--steps: '-5' is not a whole number"),
    "5 steps of zero": ([*TRAIN, "--steps=0"], "--steps: '0' is not a whole number"),
    "5 steps in other digits": ([*TRAIN, "--steps", "\u0663"], "is not a whole number"),
    "5 layers that end in a comma": ([*BUILD, "--layers", "1,"], "--layers: '' is not a whole number"),
    "5 a layer below none": ([*BUILD, "--layers=-1"], "--layers: '-1' is not a whole number"),
    "5 a seed too large": ([*BUILD, "--seed", "2147483648"], "--seed: '2147483648' is not below 2147483648"),
    "5 top-k of zero": ([*BUILD, "--top-k", "0"], "--top-k: '0' is not a whole number"),
    "5 noise of zero": ([*BUILD, "--noise", "0"], "--noise: '0' is not a finite number above 0"),
    "5 more than all drawn again": ([*BUILD, "--reinit", "1.1"], "--reinit: '1.1' is more than 1"),
    "4 layers in two ways": ([*BUILD, "--layers", "1", "--last-layers", "1"], "not allowed with argument --layers"),
    "4 noise and reinit": ([*BUILD, "--reinit", "1", "--noise", "1"], "--noise: not allowed with argument --reinit"),
    "4 top-k twice": ([*BUILD, "--top-k", "1", "--top-k", "1"], "--top-k stands twice"),
    "4 a layer twice": ([*BUILD, "--layers", "1,1"], "layers must name one layer or more, each once"),
    "3 no name of families": ([*BUILD, "--families", ""], "--families: '' is no name"),
    "3 no name of a parent": (["upcycle", "build", "", "out"], "DENSE: '' is no name"),
    "3 no OUT": (["upcycle", "build", "dense"], "polyclinic upcycle build: OUT is missing; name a folder, or add"),
    "3 no checkpoint in the recipe": (["upcycle", "build", "good.yaml", "out"], "its base is no checkpoint"),
    "2 misspelt start": ([*BUILD, "--shared-expert", "zeros"], "unknown START 'zeros'; did you mean 'zero'?"),
    "2 misspelt router": ([*BUILD, "--router-init", "centre"], "unknown HOW 'centre'"),
    "2 misspelt routing": ([*BUILD, "--routing", "hybird"], "unknown R 'hybird'; did you mean 'hybrid'?"),
    "6 --lr abc": ([*TRAIN, "--steps", "1", "--lr", "abc"], "--lr: 'abc' is not a finite number"),
    "7 --lr nan": ([*TRAIN, "--steps", "1", "--lr", "nan"], "--lr: 'nan' is not a finite number"),
    "7 --lr inf": ([*TRAIN, "--steps", "1", "--lr", "inf"], "--lr: 'inf' is not a finite number"),
    "8 unknown language xq": (["languages", "xq"], "unknown language 'xq'; did you mean"),
    "9 family name twice": (["languages", "--preset", "families.yaml"], "two families are named 'north'"),
    "10 output is the input": (["run", "good.yaml", "--out", "."], "error: .: is also an input"),
    "10 output is the input by another name": (
        ["corpus", "build", "good.yaml", "--set", "corpus.root=a", "--out", "b/../a/"],
        "is also an input",
    ),
    "10 output is the checkpoint": (["train", "run", "a", "--packs", "b", "--steps=1", "--out=./a"], "also an input"),
    "11 argument bytes": (["languages", b"\xff".decode("utf-8", "surrogateescape")], "an argument is not UTF-8"),
}


@pytest.mark.parametrize(("argv", "words"), USAGE.values(), ids=USAGE)
def test_a_fault_of_the_command_line_is_one_line_and_2(
    argv: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refusal(argv, folder, capsys)
    assert (code, words in line) == (2, True), line


def text(lines: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(lines)


def data(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def hundred_megabytes(path: Path) -> None:
    path.touch()
    os.truncate(path, 100_000_000)


CONFIG: dict[str, tuple[Callable[[Path], object], str]] = {
    "13 missing file": (lambda path: None, "no such file"),
    "14 folder instead of file": (Path.mkdir, "is a folder"),
    "15 empty file": (text(""), "the file is empty"),
    "15 blank file": (text(" \n\n"), "the file is empty"),
    "16 tab indent": (text(RECIPE.replace("  texts", "\ttexts")), "bad.yaml:3: found character '\\t'"),
    "17 duplicate key": (text(RECIPE + "name: again\n"), "bad.yaml:8: the key 'name' stands twice"),
    "18 unknown key": (text(RECIPE + "upcicle: {}\n"), "unknown key 'upcicle'; did you mean 'upcycle'?"),
    "18 unknown key inside": (text(RECIPE + "  stepps: 1\n"), "unknown key 'train.stepps'; did you mean 'steps'?"),
    "19 a language that is false": (
        text(RECIPE.replace("texts:", "languages: [false]\n  texts:")),
        "'corpus.languages.0': Input should be a valid string, given False",
    ),
    "20 learning rate as text": (
        text(RECIPE + "  learning_rate: '1e-4'\n"),
        "'train.learning_rate': Input should be a valid number, given '1e-4'; remove the quotes",
    ),
    "21 not a number": (text(RECIPE + "  learning_rate: .nan\n"), "bad.yaml:8: .nan is not a finite number"),
    "21 infinity": (text(RECIPE + "  weight_decay: -.inf\n"), "bad.yaml:8: -.inf is not a finite number"),
    "21 nan as a word": (text(RECIPE + "  learning_rate: NaN\n"), "'train.learning_rate'"),
    "21 too large for a float": (text(RECIPE + "  learning_rate: 1e999\n"), "1e999 is not a finite number"),
    "22 python tag": (text(RECIPE + "seed: !!python/object/apply:os.mkdir ['out']\n"), "is not allowed"),
    "23 alias bomb": (text(BOMB), "the alias *a0 is not allowed"),
    "24 100 MB": (hundred_megabytes, "100000000 bytes, the limit is 1000000"),
    "25 byte order mark": (data(b"\xef\xbb\xbf" + RECIPE.encode()), "starts with a byte order mark"),
    "25 UTF-16": (data(RECIPE.encode("utf-16")), "starts with a byte order mark"),
    "25 UTF-16 without a mark": (data(RECIPE.encode("utf-16-le")), "not YAML"),
    "25 Latin-1": (data(RECIPE.replace("good", "g\u00fct").encode("latin-1")), "byte 7 is not UTF-8"),
    "26 unset variable": (
        text(RECIPE.replace("texts:", "root: ${POLYCLINIC_UNSET}/x\n  texts:")),
        "corpus.root uses ${POLYCLINIC_UNSET}, which is not set; export POLYCLINIC_UNSET=...",
    ),
}


@pytest.mark.parametrize("command", [["run"], ["check"], ["corpus", "build"]], ids=" ".join)
@pytest.mark.parametrize(("make", "words"), CONFIG.values(), ids=CONFIG)
def test_a_fault_of_a_recipe_is_one_line_naming_the_file_and_3(
    make: Callable[[Path], object],
    words: str,
    command: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(Path("bad.yaml"))
    out = [] if command == ["check"] else ["--out", "out"]
    code, line = refusal([*command, "bad.yaml", *out], folder, capsys)
    assert (code, words in line) == (3, True), line
    assert line.startswith("error: bad.yaml")


DENSE = {
    "model_type": "qwen2", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
ONE = "families:\n  - {name: a, languages: [en]}\n"
CHOICES = {
    "27 top-k above experts": ("top_k: 8", "", "upcycle: top_k 8 of 7 experts; give top_k 1 to 7"),
    "27 top-k above one expert": ("families: f.yaml", f"name: f\n{ONE}", "upcycle: top_k 2 of 1 experts"),
    "27 experts other than families": ("num_experts: 6", "", "num_experts 6, but preset 'balanced' has 7"),
    "28 no language in a family": ("families: f.yaml", "name: f\nfamilies: [{name: a, languages: []}]", "no language"),
    "28 no families": ("families: f.yaml", "name: f\nfamilies: []", "families must be a filled list"),
    "28 no languages": ("families: f.yaml", "name: f\nfamilies: [{name: a, languages: }]", "'a': no language"),
    "28 a preset that is none": ("families: balancde", "", "balancde: neither a shipped preset nor a file"),
    "28 a preset that is a folder": ("families: .", "", "is a folder, a file was expected"),
    "29 language in two families": (
        "families: f.yaml", f"name: f\n{ONE}  - {{name: b, languages: [fr, en]}}", "en stands in 'a' and in 'b'",
    ),
    "29 language in two families by two names": (
        "families: f.yaml", f"name: f\n{ONE}  - {{name: b, languages: [eng]}}", "en stands in 'a' and in 'b'",
    ),
    "29 language twice in a family": (
        "families: f.yaml", "name: f\nfamilies: [{name: a, languages: [en, en]}]", "en stands in 'a' and in 'a'",
    ),
    "29 language that is none": ("families: f.yaml", f"name: f\n{ONE.replace('en', 'xq')}", "unknown language 'xq'"),
    "29 layer outside the model": ("layers: [0, 3]", "", "upcycle.layers: layer 3 of 3 layers, counted from 0"),
    "29 more layers than there are": ("last_layers: 4", "", "upcycle.last_layers: 4 of 3 layers"),
    "29 no layer": ("layers: []", "", "layers must name one layer or more"),
    "29 a layer twice": ("layers: [1, 1]", "", "layers must name one layer or more, each once"),
    "29 a router that cannot learn": ("router_init: zero", "", "sends every token to the same experts for ever"),
}  # fmt: skip


@pytest.mark.parametrize(
    "command", [["upcycle", "build", "r.yaml", "out"], ["run", "r.yaml", "--dry-run"]], ids=" ".join
)
@pytest.mark.parametrize(("choice", "families", "words"), CHOICES.values(), ids=CHOICES)
def test_a_choice_that_means_nothing_is_one_line_and_3(
    choice: str, families: str, words: str, command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A config.json is enough: it is refused before a weight is read, and before anything is made."""
    (folder / "dense").mkdir()
    (folder / "dense" / "config.json").write_text(json.dumps(DENSE))
    if families:
        (folder / "f.yaml").write_text(families)
    routed = RECIPE.replace("from_scratch: {steps: 1}", "checkpoint: dense") + "  routing: topk\n"
    (folder / "r.yaml").write_text(f"{routed}upcycle: {{{choice}}}\n")
    code, line = refusal(command, folder, capsys)
    assert (code, words in line) == (3, True), line


COUNTS = {
    "empty": "",
    "cut short": '{"tokens": {"en": 1',
    "no object": "[]",
    "no counts": "{}",
    "counts of nothing": '{"tokens": null}',
    "a count as text": '{"tokens": {"en": "1"}}',
    "a count as truth": '{"tokens": {"en": true}}',
    "a part of a token": '{"tokens": {"en": 1.5}}',
    "fewer than none": '{"tokens": {"en": -1}}',
    "not a number": '{"tokens": {"en": NaN}}',
    "no text": '{"tokens": {"en": 0}}',
    "a language that is none": '{"tokens": {"xq": 1}}',
    "a language by two names": '{"tokens": {"en": 1, "eng": 1}}',
    "counts as text": '{"tokens": "ab"}',
    "brackets without end": "[" * 100_000,
}


@pytest.mark.parametrize("recompute", [[], ["--recompute", "--save", "new.yaml"]], ids=["as it is", "recomputed"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_counts_that_cannot_be_right_are_one_line_and_3(
    counts: str, recompute: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run" / "packed").mkdir(parents=True)
    (folder / "run" / "packed" / "packs.json").write_text(counts)
    code, line = refusal(["languages", "--corpus", "run", *recompute], folder, capsys)
    assert (code, line.startswith("error: run/packed/packs.json: ")) == (3, True), line


def test_19_norwegian_survives_without_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("no.yaml").write_text(RECIPE.replace("texts:", "languages: [no, en]\n  texts:"))
    assert main(["check", "no.yaml"]) == 0
    assert '"no"' in capsys.readouterr().out
    assert main(["check", "good.yaml", "--set", "corpus.languages=[en, no]"]) == 0
    assert '"no"' in capsys.readouterr().out


def test_20_a_learning_rate_without_quotes_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lr.yaml").write_text(RECIPE + "  learning_rate: 1e-4\n")
    assert main(["check", "lr.yaml"]) == 0
    assert '"learning_rate": 0.0001' in capsys.readouterr().out


def command(argv: list[str | bytes], stdout: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the real command in a process of its own."""
    program: list[str | bytes] = [sys.executable, "-m", "polyclinic.cli"]
    return subprocess.run([*program, *argv], stderr=subprocess.PIPE, stdout=stdout, check=False)


def test_11_argument_bytes_of_a_real_process(folder: Path) -> None:
    before = listing(folder)
    done = command(["run", "good.yaml", "--out", b"out\xff"])
    assert done.returncode == 2
    assert LINE.fullmatch(done.stderr.decode())
    assert listing(folder) == before


@pytest.mark.parametrize(
    "argv",
    [["languages"], ["languages", "--json"], ["check", "good.yaml"], ["--help"], ["run", "--help"], ["--version"]],
    ids=" ".join,
)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_12_a_closed_pipe_ends_the_command_without_noise(
    argv: list[str | bytes], unbuffered: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    before = listing(folder)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = command(argv, stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode in (0, 141)
    assert done.stderr == b""
    assert listing(folder) == before


def test_every_row_of_the_list_has_its_test() -> None:
    ids = {int(name.split()[0]) for name in [*USAGE, *CONFIG, *CHOICES]}
    assert ids | {12} == set(range(1, 30))
