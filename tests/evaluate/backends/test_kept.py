"""What was answered is not asked again, whatever was killed; what would be answered otherwise is asked anew."""

import itertools
import json
import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counted
import pytest
from asking import apart
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from polyclinic.errors import BusyError, DataError
from polyclinic.evaluate.backends import kept
from polyclinic.evaluate.backends.kept import FILE, Kept, Store, opened
from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.moe.checkpoint import load_model


class Echo(LM):
    """Answers by what it is asked, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.fails_at = 10**9

    def _seen(self, requests: list[Instance]) -> list[Any]:
        if len(self.seen) + len(requests) > self.fails_at:
            raise RuntimeError("no more")
        self.seen += [request.args for request in requests]
        return [request.args for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [(-len(a) - len(b) / 7, len(b) % 2 == 0) for a, b in self._seen(requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return [-len(a) / 3 for (a,) in self._seen(requests)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [f"{a} {len(self.seen)} \ud800é" for a, _ in self._seen(requests)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "kept") as store:
        yield store


def score(context: str, choice: str = " b", language: str | None = "en") -> Instance:
    return Instance("loglikelihood", {"language": language}, (context, choice), 0)


def write(context: str, language: str = "en", **settings: Any) -> Instance:
    return Instance("generate_until", {"language": language}, (context, {"until": ["x"], **settings}), 0)


def test_answers_are_the_models_and_in_order_the_second_time_from_the_store(store: Store) -> None:
    echo, requests = Echo(), [score(f"q{n}", " b" * (n % 5)) for n in range(700)]
    expected = Echo().loglikelihood(requests)
    for _ in range(2):
        assert Kept(echo, store, {}).loglikelihood(requests) == expected
    assert len(echo.seen) == 700
    again = Kept(echo, store, {}).loglikelihood(requests[::-2])
    assert again == expected[::-2]
    assert len(echo.seen) == 700


def test_whole_texts_and_written_ones_are_kept_too(store: Store) -> None:
    echo = Echo()
    whole = [Instance("loglikelihood_rolling", {}, (f"text {n}",), 0) for n in range(9)]
    texts = [write(f"prompt {n}") for n in range(9)]
    first = Kept(echo, store, {}).loglikelihood_rolling(whole), Kept(echo, store, {}).generate_until(texts)
    assert first == (Kept(echo, store, {}).loglikelihood_rolling(whole), Kept(echo, store, {}).generate_until(texts))
    assert len(echo.seen) == 18


@pytest.mark.parametrize(
    ("facts", "request_"),
    [
        ({"files": {"model.safetensors": "b"}}, score("q")),
        ({"routing": "hybrid"}, score("q")),
        ({}, score("q", language="fr")),
        ({}, score("q", language=None)),
        ({}, score("q ", "b")),
        ({}, score("q", " c")),
    ],
)
def test_what_may_be_answered_otherwise_is_asked_again(store: Store, facts: dict[str, Any], request_: Instance) -> None:
    echo, before = Echo(), {"files": {"model.safetensors": "a"}, "routing": "stock"}
    for _ in range(2):
        Kept(echo, store, before).loglikelihood([score("q")])
        Kept(echo, store, before | facts).loglikelihood([request_])
    assert echo.seen == [("q", " b"), request_.args]


@pytest.mark.parametrize("other", [write("q", max_gen_toks=7), write("q", language="sw"), write("p")])
def test_other_settings_of_writing_are_asked_again(store: Store, other: Instance) -> None:
    echo = Echo()
    for _ in range(2):
        Kept(echo, store, {}).generate_until([write("q"), other])
    assert len(echo.seen) == 2


def test_a_request_made_twice_is_asked_once_unless_its_answer_is_drawn(store: Store) -> None:
    echo = Echo()
    Kept(echo, store, {}).generate_until([write("q"), write("q")])
    assert len(echo.seen) == 1
    drawn = [write("q", do_sample=True)] * 3
    first = Kept(echo, store, {}).generate_until(drawn)
    assert len(echo.seen) == 4
    assert Kept(echo, store, {}).generate_until(drawn) == first


def test_a_model_that_fails_loses_one_chunk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kept.CHUNKS, "loglikelihood", 10)
    echo, requests = Echo(), [score(f"q{n}") for n in range(40)]
    echo.fails_at = 25
    with pytest.raises(RuntimeError):
        Kept(echo, store, {}).loglikelihood(requests)
    echo.fails_at = 10**9
    Kept(echo, store, {}).loglikelihood(requests)
    assert Counter(echo.seen) == Counter(request.args for request in requests)


def test_chunks_part_no_document_and_leave_nothing_out() -> None:
    docs = [{"n": n} for n in range(9)]
    requests = [Instance("loglikelihood", docs[n], ("", ""), i) for n in range(9) for i in range(n % 4 + 1)]
    found = list(kept.chunks(requests, 4))
    assert [i for chunk in found for i in chunk] == list(range(len(requests)))
    for one, other in itertools.pairwise(found):
        assert requests[one[-1]].doc is not requests[other[0]].doc
    assert all(4 <= len(chunk) < 8 for chunk in found[:-1])
    assert list(kept.chunks([], 4)) == []


def test_two_processes_do_not_have_one_store(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from polyclinic.evaluate.backends.kept import opened\n"
    code += "with opened(Path(sys.argv[1])): pass"
    with opened(tmp_path / "kept"), pytest.raises(BusyError), opened(tmp_path / "kept"):
        pass
    with opened(tmp_path / "kept"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "kept")], capture_output=True, text=True)
    assert "BusyError" in done.stderr
    with opened(tmp_path / "kept"):
        pass


@pytest.mark.parametrize("damage", ["value", "header", "other", "cut", "version", "page"])
def test_a_damaged_store_is_set_aside_with_a_notice_and_its_questions_are_asked_again(
    tmp_path: Path, damage: str
) -> None:
    requests, path = [score(f"q{n}", " b" * (n % 5)) for n in range(300)], tmp_path / FILE
    with opened(tmp_path) as store:
        Kept(Echo(), store, {}).loglikelihood(requests)
    data = path.read_bytes()
    if damage in ("value", "version"):
        with sqlite3.connect(path) as db:
            db.execute(
                "update answers set value = '[-0.5, true]' where rowid = 9"
                if damage == "value"
                else "pragma user_version = 7"
            )
        db.close()
    else:
        broken = {"header": b"x" * 100 + data[100:], "other": b"no database", "cut": data[: len(data) // 2]}
        middle = len(data) // 2
        path.write_bytes(broken.get(damage, data[:middle] + bytes(4096) + data[middle + 4096 :]))
    heard: list[str] = []
    echo = Echo()
    with opened(tmp_path, heard.append) as store:
        assert Kept(echo, store, {}).loglikelihood(requests) == Echo().loglikelihood(requests)
    assert len(echo.seen) == 300
    assert len(heard) == 1
    assert "damaged-1-answers.sqlite" in heard[0]
    assert (tmp_path / "damaged-1-answers.sqlite").is_file()


def test_what_is_damaged_while_it_is_open_is_one_line(store: Store, tmp_path: Path) -> None:
    Kept(Echo(), store, {}).loglikelihood([score("q")])
    with sqlite3.connect(tmp_path / "kept" / FILE) as db:
        db.execute("update answers set value = '[-0.5, true]'")
    db.close()
    with pytest.raises(DataError, match="is damaged"):
        Kept(Echo(), store, {}).loglikelihood([score("q")])


def test_the_facts_of_a_checkpoint_follow_weights_tokenizer_and_settings(
    models: dict[str, Path], tmp_path: Path
) -> None:
    facts = LocalModel(models["base"]).facts()
    assert json.loads(json.dumps(facts)) == facts == LocalModel(models["base"]).facts()
    assert facts != LocalModel(models["mixture"]).facts()
    assert LocalModel(models["mixture"]).facts() != LocalModel(models["mixture"], route="hybrid").facts()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        folder = tmp_path / name
        shutil.copytree(models["base"], folder)
        if name == "model.safetensors":
            model = load_model(folder)
            model.get_input_embeddings().weight.data[0, 0] += 1
            model.save_pretrained(folder)
        else:
            (folder / name).write_text((folder / name).read_text() + "\n")
        assert LocalModel(folder).facts() != facts


def test_a_run_that_is_killed_goes_on_where_it_was(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kept.CHUNKS, "loglikelihood", counted.CHUNK)
    places = (models["base"], tmp_path / "kept", tmp_path / "log")
    for kill in (1, 2):
        process = multiprocessing.get_context("fork").Process(target=counted.answer, args=(*places, 0.3))
        process.start()
        until = count(places[2]) + 2 * counted.CHUNK + 1
        while count(places[2]) < until and process.is_alive():
            time.sleep(0.01)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, kill
    found = counted.answer(*places, 0.0)
    seen = Counter(places[2].read_text().splitlines())
    assert set(seen) == {repr(request.args) for request in counted.questions(20)}
    assert sum(seen.values()) - len(seen) == 2 * counted.CHUNK  # what was under way at each kill
    assert max(seen.values()) == 2
    assert apart(found, LocalModel(models["base"]).loglikelihood(counted.questions(20))) < 1e-4


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
