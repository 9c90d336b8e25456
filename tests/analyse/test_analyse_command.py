"""`analyse run` from the command line: texts of a folder, the starter corpus; bad input in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

import small
import stock_mixtures as stock
from polyclinic import commands_analyse
from polyclinic.analyse.tally_files import load_tally
from polyclinic.cli import main
from polyclinic.moe.attach import sparse_layers
from polyclinic.moe.checkpoint import load_model
from polyclinic.train.checkpoint import save

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def without_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, which takes seconds, but where the page is asked for."""
    if "page" not in request.node.name:
        monkeypatch.setattr(commands_analyse, "_page", lambda *_: None)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Write the small texts as JSON lines, a file a language."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for document in small.documents(4):
        record = {"text": document.text(), "parallel_id": document.group}
        with (folder / f"{document.language}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    return folder


def routed(capsys: Capture, *words: Any) -> Any:
    assert main(["analyse", "run", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Capture, *words: Any) -> tuple[int, str]:
    code = main(["analyse", "run", *map(str, words)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return code, lines[0]


def test_a_folder_of_texts_is_routed(mixture: Path, texts: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    result = routed(capsys, mixture, "--text", texts, "--out", out, "--languages", "th,eng", "--tokens", "--forced")
    assert list(result["tokens_of"]) == ["en", "th"]
    assert result["parallel"] == 4
    assert result == json.loads((out / "analyse" / "routing.json").read_text("utf-8"))
    assert {p.name for p in (out / "analyse").iterdir()} >= {"tally.npz", "tally_forced.npz", "tokens.parquet"}
    assert load_tally(out / "analyse" / "tally.npz").languages == ("en", "th")
    few = routed(capsys, mixture, "--text", texts, "--out", tmp_path / "few", "--documents", "2")
    assert len(few["tokens_of"]) == 4
    assert len(load_tally(tmp_path / "few" / "analyse" / "tally.npz").tokens_B) == 8


def test_a_page_and_what_experts_are_worth_lie_beside_the_facts(
    mixture: Path, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    words = ("--text", texts, "--languages", "en,th", "--causal", "2")
    result = routed(capsys, mixture, *words, "--out", out)
    assert result["text"]["documents"] == 8
    causal = json.loads((out / "analyse" / "causal.json").read_text("utf-8"))
    assert {code: row["documents"] for code, row in causal["languages"].items()} == {"en": 2, "th": 2}
    html = (out / "report.html").read_text("utf-8")
    assert "What an expert is worth" in html
    assert {path.suffix for path in (out / "figures").glob("causal.*")} == {".csv", ".png", ".svg"}
    listed = [w for layer in result["specific"]["layers"] for expert in layer["experts"] for w in expert]
    vocabulary = Tokenizer.from_file(str(mixture / "tokenizer.json"))
    spelt = {w["id"]: w["text"] for w in listed if w["text"] is not None}
    assert spelt
    assert all(text in vocabulary.decode([number]) for number, text in spelt.items())


def test_text_that_changed_is_routed_again(mixture: Path, texts: Path, tmp_path: Path, capsys: Capture) -> None:
    words = (mixture, "--text", texts, "--out", tmp_path / "out")
    before, again = routed(capsys, *words), routed(capsys, *words)
    assert before == again
    with (texts / "en.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "fever water"}\n')
    assert routed(capsys, *words)["tokens_of"]["en"] > before["tokens_of"]["en"]


def test_the_starter_corpus_is_routed_in_chosen_languages(mixture: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    result = routed(capsys, mixture, "--starter", "--out", out, "--languages", "sw,ja", "--documents", "3")
    assert list(result["tokens_of"]) == ["ja", "sw"]
    assert load_tally(out / "analyse" / "tally.npz").bucket_number.tolist().count(0) == 2


def test_checkpoints_of_a_training_are_compared_with_the_last(
    mixture: Path, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = load_model(mixture)
    for step in (1, 2):
        optimizer = torch.optim.AdamW(model.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        save(tmp_path / "steps", step, model, optimizer, schedule, "{}")
        with torch.no_grad():
            for layer in sparse_layers(model).values():
                layer.mlp.gate.weight.neg_()
    result = routed(capsys, mixture, "--text", texts, "--out", tmp_path / "out", "--checkpoints", tmp_path / "steps")
    found = result["saturation"]
    assert list(found["checkpoints"]) == ["step-00000001", "step-00000002"]
    assert (found["last"], found["n"]) == ("step-00000002", result["tokens"])
    assert found["checkpoints"]["step-00000002"]["overlap"] == [1.0, 1.0]
    assert max(found["checkpoints"]["step-00000001"]["same_first"]) < 0.5  # what was best is now worst
    alone = routed(capsys, mixture, "--text", texts, "--out", tmp_path / "alone")
    assert {k: v for k, v in result.items() if k != "saturation"} == alone


def test_a_dense_model_is_refused(mixture: Path, texts: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "vocabulary").mkdir()
    shutil.copy(mixture / "tokenizer.json", tmp_path / "vocabulary")
    dense = small.dense(tmp_path / "dense", tmp_path / "vocabulary")
    code, line = refused(capsys, dense, "--text", texts, "--out", tmp_path / "out")
    assert (code, f"{dense}: is not a mixture" in line) == (4, True)
    assert refused(capsys, tmp_path / "absent", "--text", texts, "--out", tmp_path / "out")[0] == 4


def test_a_stock_mixture_is_analysed_and_has_no_family_to_force(
    mixture: Path, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "glm"
    model = stock.model("glm4_moe")
    model.resize_token_embeddings(small.VOCABULARY)
    model.save_pretrained(folder)
    shutil.copy(mixture / "tokenizer.json", folder)
    result = routed(capsys, folder, "--text", texts, "--out", tmp_path / "out")
    assert result["layers_of"] == stock.LAYERS["glm4_moe"]
    assert result["own_expert"] == {}
    code, line = refused(capsys, folder, "--text", texts, "--out", tmp_path / "other", "--forced")
    assert (code, "polyclinic.json" in line) == (4, True)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--languages", "en"], "fewer than two languages"),
        (["--languages", "en,fr"], "0 tokens of text in fr"),
        (["--languages", "en,xx"], "unknown language 'xx'"),
        (["--checkpoints", "."], "fewer than two checkpoints"),
    ],
)
def test_text_that_cannot_be_compared_is_refused(
    options: list[str], what: str, mixture: Path, texts: Path, tmp_path: Path, capsys: Capture
) -> None:
    code, line = refused(capsys, mixture, "--text", texts, "--out", tmp_path / "out", *options)
    assert code == 3
    assert what in line


def test_folders_without_text_are_refused(mixture: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    for name, what in (("empty", "holds no .jsonl or .txt files"), ("absent", "is no folder")):
        code, line = refused(capsys, mixture, "--text", tmp_path / name, "--out", tmp_path / "out")
        assert (code, what in line) == (3, True)
    for code in ("en", "th"):
        (tmp_path / "empty" / f"{code}.txt").write_text(" \n\nwater\n", "utf-8")
    code, line = refused(capsys, mixture, "--text", tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 3
    assert "fewer than two languages that has at least 7 tokens" in line
    assert not (tmp_path / "out" / "analyse").exists()


def test_one_source_of_text_is_named(mixture: Path, texts: Path, tmp_path: Path, capsys: Capture) -> None:
    assert refused(capsys, mixture, "--out", tmp_path / "out")[0] == 2
    assert refused(capsys, mixture, "--starter", "--text", texts, "--out", tmp_path / "out")[0] == 2
    assert refused(capsys, mixture, "--text", texts, "--out", texts)[0] == 2
