"""Training an identifier: the held-out part, the same model again, and a model that tells apart what it saw."""

import json
from collections import Counter
from pathlib import Path

import pytest

from polyclinic.cli import main
from polyclinic.corpus import starter
from polyclinic.corpus.identify.ngrams import load, read
from polyclinic.corpus.identify.train_identifier import hold_out, train
from polyclinic.errors import DataError
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn

THREE = ("co", "su", "th")


def documents() -> list[Document]:
    return [d for d in starter.documents() if d.language in THREE]


def made(number: int, language: str = "en", source: str = "s") -> Document:
    return Document(f"{number}", language, source, "l", f"g{number // 2}", (Turn("text", "t"),))


def test_groups_are_held_out_whole_and_some_of_every_source() -> None:
    given = [
        made(n, code, source) for code in ("en", "co") for source, most in (("a", 100), ("b", 4)) for n in range(most)
    ]
    rest, held = hold_out(given, 0.2)
    assert Counter((d.language, d.source) for d in held) == {
        (code, source): n for code in ("en", "co") for source, n in (("a", 20), ("b", 2))
    }
    assert not {(d.language, d.source, d.group) for d in held} & {(d.language, d.source, d.group) for d in rest}
    assert len(rest) + len(held) == len(given)
    assert hold_out(reversed(given), 0.2)[1] == held[::-1]
    assert hold_out(given, 0.0) == (given, [])


def test_a_source_of_one_group_stays_in_training() -> None:
    assert hold_out([made(0), made(1)], 0.5)[1] == []


def test_a_trained_model_knows_texts_that_it_did_not_see() -> None:
    training = [d for d in documents() if d.split == "train"]
    model = train(training, Silent(), windows=80)
    assert model.labels == THREE
    assert model.scripts["th"] == {"Thai"}
    for document in documents():
        scores = dict(zip(THREE, model.scores(read(document.text(), model.bits)), strict=True))
        assert max(scores, key=scores.__getitem__) == document.language


def test_training_again_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(documents(), Silent(), windows=5, seed=seed).save(tmp_path / name)
    one, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == again != other


def test_one_language_is_no_choice() -> None:
    with pytest.raises(DataError, match="two languages"):
        train([d for d in documents() if d.language == "co"], Silent())


def test_the_command_makes_a_file_of_the_languages_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    lines = [json.dumps({"id": d.id, "language": d.language, "text": d.text()}) for d in documents()]
    (folder / "all.jsonl").write_text("\n".join(lines), "utf-8")
    command = ["corpus", "train-identifier", "--text", str(folder), "--out", str(tmp_path / "m.bin"), "--windows", "5"]
    assert main([*command, "--languages", "co,th", "--held-out", "0.25", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["languages"], told["documents"]) == (["co", "th"], 12)
    assert load(tmp_path / "m.bin").labels == ("co", "th")
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main([*command[:3], str(tmp_path / "none"), "--out", str(tmp_path / "n.bin")]) == 3
