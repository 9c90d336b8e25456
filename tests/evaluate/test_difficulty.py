"""Difficulty: perplexity and IFD equal to plain forwards of one document, whatever stands beside it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

import small
from polyclinic.cli import main
from polyclinic.corpus.build import build
from polyclinic.corpus_section import CorpusSection
from polyclinic.evaluate import difficulty as module
from polyclinic.evaluate.difficulty import COLUMNS, Figures, Scored, difficulty, first, gaps, write_difficulty
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn

ANSWER = "medicine fever child water doctor hand"


def dialogue(*turns: str) -> Document:
    roles = ("user", "assistant")
    made = tuple(Turn(roles[i % 2], content) for i, content in enumerate(turns))
    return replace(small.documents(1)[0], turns=made)


def text(content: str) -> Document:
    return replace(small.documents(1)[0], turns=(Turn("text", content),))


def ids_of(checkpoint: Path, content: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(content, add_special_tokens=False).ids


@torch.no_grad()
def nats(checkpoint: Path, ids: list[int], places: range) -> float:
    """Return the mean loss of the tokens at some places, each from a forward over what stands before it."""
    model = load_model(checkpoint).eval()
    found = []
    for place in places:
        logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        found.append(-torch.log_softmax(logits.double(), 0)[ids[place]].item())
    return float(np.mean(found))


def one(checkpoint: Path, document: Document) -> Figures:
    return next(difficulty(checkpoint, [document], 1, Silent()))


@pytest.mark.parametrize("name", ["base", "mixture"])
def test_the_loss_of_a_text_is_that_of_forwards_over_what_stands_before_each_token(
    models: dict[str, Path], name: str
) -> None:
    content = "fever and water, ไข้ <|endoftext|>"
    ids = ids_of(models[name], content)
    figures = one(models[name], text(content))
    assert figures.tokens == len(ids) - 1
    assert figures.loss == pytest.approx(nats(models[name], ids, range(1, len(ids))), rel=1e-4)
    assert math.isnan(figures.ifd())


@pytest.mark.parametrize("name", ["base", "mixture"])
def test_ifd_is_the_answers_perplexity_after_the_question_over_that_without_it(
    models: dict[str, Path], name: str
) -> None:
    head, answer = ids_of(models[name], "User: fever\nAssistant:"), ids_of(models[name], f" {ANSWER}")
    alone = ids_of(models[name], "Assistant:")
    assert ids_of(models[name], f"User: fever\nAssistant: {ANSWER}") == head + answer
    asked = nats(models[name], head + answer, range(len(head), len(head + answer)))
    bare = nats(models[name], alone + answer, range(len(alone), len(alone + answer)))
    figures = one(models[name], dialogue("fever", ANSWER))
    assert figures.tokens == len(answer)
    assert figures.loss == pytest.approx(asked, rel=1e-4)
    assert figures.ifd() == pytest.approx(math.exp(asked - bare), rel=1e-3)
    assert abs(figures.ifd() - 1) > 1e-3


def test_a_later_answer_is_read_after_the_end_token_of_the_one_before(models: dict[str, Path]) -> None:
    """Three turns and a fourth: the loss is the mean over the tokens of both answers."""
    base = models["base"]
    end = load_model(base).config.eos_token_id
    first, second = (
        ids_of(base, f"User: fever\nAssistant: {ANSWER}"),
        ids_of(base, f"\nUser: hand\nAssistant: {ANSWER}"),
    )
    size = len(ids_of(base, f" {ANSWER}"))
    ids = [*first, end, *second]
    places = [range(len(first) - size, len(first)), range(len(ids) - size, len(ids))]
    figures = one(base, dialogue("fever", ANSWER, "hand", ANSWER))
    assert figures.tokens == 2 * size
    assert figures.loss == pytest.approx(np.mean([nats(base, ids, found) for found in places]), rel=1e-4)


def test_neighbours_in_a_batch_change_nothing(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [*small.documents(5), text("fever " * 30), text("a"), dialogue("fever", "hand " * 40)]
    together = list(difficulty(models["mixture"], documents, len(documents), Silent()))
    monkeypatch.setattr(module, "AT_ONCE", 1)
    alone = list(difficulty(models["mixture"], documents, len(documents), Silent()))
    assert [f.tokens for f in together] == [f.tokens for f in alone]
    np.testing.assert_allclose([f[1:] for f in together], [f[1:] for f in alone], rtol=1e-5)


def test_what_is_cut_off_counts_neither_after_the_question_nor_alone(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = models["base"]
    head, answer = ids_of(base, "User: fever\nAssistant:"), ids_of(base, f" {ANSWER}")
    alone = ids_of(base, "Assistant:")
    kept = len(answer) - 3
    monkeypatch.setattr(module, "MAX_TOKENS", len(head) + kept)
    figures = one(base, dialogue("fever", ANSWER))
    assert figures.tokens == kept
    assert figures.loss_alone == pytest.approx(
        nats(base, alone + answer, range(len(alone), len(alone) + kept)), rel=1e-4
    )


def test_what_is_left_after_a_cut_is_taken_from_the_first_answers() -> None:
    rows = [Scored([1, 2, 3], [False, True, True]), Scored([1, 2], [False, True])]
    for tokens, counted in ((3, [2, 1]), (2, [2, 0]), (1, [1, 0])):
        assert [sum(row.counts) for row in first(rows, tokens)] == counted


def test_answers_of_few_tokens_have_no_ifd(models: dict[str, Path]) -> None:
    sizes = {}
    for count in range(1, 8):
        figures = one(models["base"], dialogue("fever", "a" * count))
        sizes[figures.tokens] = math.isnan(figures.ifd())
    assert {tokens: tokens < 5 for tokens in sizes} == sizes
    assert {True, False} == set(sizes.values())


def test_gaps_have_mean_0_and_spread_1_within_a_language_and_kind() -> None:
    draw = np.random.default_rng(0)
    ours = [Figures(9, loss, loss - ifd) for loss, ifd in draw.normal(1, 0.3, (40, 2))]
    ours += [Figures(9, loss, math.nan) for loss in draw.normal(5, 1, 20)]
    others = [Figures(9, f.loss - shift, f.loss_alone) for f, shift in zip(ours, draw.normal(0, 0.1, 60), strict=True)]
    codes = ["th", "en"] * 30
    found = gaps(codes, ours, others)
    for code in ("th", "en"):
        for texts in (False, True):
            rows = [i for i in range(60) if codes[i] == code and math.isnan(ours[i].loss_alone) == texts]
            assert found[rows].mean() == pytest.approx(0, abs=1e-12)
            assert found[rows].std() == pytest.approx(1)
    harder = [a.loss - b.loss for a, b in zip(ours, others, strict=True)]
    texts_of_en = [i for i in range(40, 60) if codes[i] == "en"]
    assert np.argmax(found[texts_of_en]) == np.argmax([harder[i] for i in texts_of_en])


def test_gaps_of_what_cannot_be_compared_are_none() -> None:
    short, long = Figures(4, 1.0, 2.0), Figures(9, 1.0, 2.0)
    assert np.isnan(gaps(["en", "en", "th"], [short, long, long], [short, long, long])).all()
    assert gaps(["en", "en"], [long, long], [long, long]).tolist() == [0.0, 0.0]


def test_the_command_writes_a_row_for_each_document_of_a_built_corpus(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = CorpusSection.model_validate({"texts": [{"starter": True}], "languages": ["en", "th"]})
    (tmp_path / "corpus").mkdir()
    build(section, tmp_path / "corpus", Silent())
    out = tmp_path / "difficulty.parquet"
    options = ["--corpus", str(tmp_path / "corpus"), "--against", str(models["base"]), "--out", str(out)]
    assert main(["evaluate", "difficulty", str(models["mixture"]), *options]) == 0
    table = pq.read_table(out)
    assert table.schema.equals(COLUMNS)
    assert table.num_rows == 16
    assert "16 documents" in capsys.readouterr().out
    assert table.column("ifd").null_count == table.column("gap").null_count == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert main(["evaluate", "difficulty", str(models["mixture"]), *options[:-1], str(tmp_path / "no" / "x")]) == 5
    assert main(["evaluate", "difficulty", str(tmp_path), *options]) == 4


def test_no_documents_make_an_empty_file_and_short_ones_nulls(models: dict[str, Path], tmp_path: Path) -> None:
    assert write_difficulty(models["base"], None, lambda: [], tmp_path / "none", Silent()) == 0
    assert pq.read_table(tmp_path / "none").schema.equals(COLUMNS)
    write_difficulty(models["base"], None, lambda: [text("a"), text("fever and water")], tmp_path / "two", Silent())
    rows = pq.read_table(tmp_path / "two").to_pylist()
    assert (rows[0]["tokens"], rows[0]["perplexity"]) == (0, None)
    assert rows[1]["perplexity"] > 1
    assert {row["gap"] for row in rows} == {None}
