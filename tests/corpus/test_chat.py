"""Asking a model: faults are survived, nothing answered is asked again, bounds hold, nothing is told."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from failing_server import Badly, serve

from polyclinic.corpus.ask import chat as chatting
from polyclinic.corpus.ask.answers import Answer, Answers
from polyclinic.corpus.ask.chat import Chat, Refused, Unanswered, pause, retry_after
from polyclinic.corpus_section import EndpointSection
from polyclinic.errors import DataError, MissingDependencyError, PolyclinicError, RecipeError

Start = Callable[..., Badly]
TOLD = "the patient Zubayda Quill"


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Badly] = []

    def begin(*faults: str, **settings: Any) -> Badly:
        servers.append(Badly(list(faults), **settings))
        serve(servers[-1])
        return servers[-1]

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatting, "FIRST_PAUSE", 0.01)


def endpoint(server: Badly | str, **settings: Any) -> EndpointSection:
    url = server if isinstance(server, str) else server.url
    return EndpointSection.model_validate({"base_url": url, "model": "m", "tries": 10, "timeout_s": 0.4, **settings})


def say(text: str, seed: int | None = None) -> Any:
    async def talk(chat: Chat) -> str:
        return (await chat.ask([{"role": "user", "content": text}], seed)).text

    return talk


def asked(server: Badly, *texts: str, answers: Answers | None = None, **settings: Any) -> list[str]:
    return Chat(endpoint(server, **settings), answers or Answers(None)).run([say(text) for text in texts])


@pytest.mark.parametrize(
    "fault", ["stall", "trickle", "close", "half", "json", "page", "empty", "500", "503", "429", "408"]
)
def test_each_fault_is_tried_again_until_the_answer_comes(start: Start, fault: str) -> None:
    server = start(fault)
    assert asked(server, "one", "two") == ["one", "two"]
    assert sorted(server.tries.values()) == [2, 2]


def test_one_fault_after_the_other_is_survived_and_an_answer_is_asked_for_once(start: Start, tmp_path: Path) -> None:
    server = start("stall", "500", "close", "json", "429")
    store = Answers(tmp_path / "a.sqlite")
    assert asked(server, *"abcab", answers=store) == list("abcab")
    assert sorted(server.tries.values()) == [6, 6, 6]
    again = start()
    assert asked(again, *"abc", answers=Answers(tmp_path / "a.sqlite")) == list("abc")
    assert again.tries == {}


def test_the_server_says_how_long_to_wait(start: Start) -> None:
    server = start("wait1")
    asked(server, "one")
    ((first, second),) = server.times.values()
    assert second - first >= 1.0


def test_a_wait_is_read_as_seconds_or_as_a_date_and_has_an_end() -> None:
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0.0
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert pause(1, 1e9) <= 301


def test_pauses_grow_up_to_a_bound_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatting, "FIRST_PAUSE", 0.5)
    means = [sum(pause(tried, None) for _ in range(200)) / 200 for tried in (1, 2, 3, 20)]
    assert means == pytest.approx([0.5, 1.0, 2.0, 30.0], rel=0.15)
    assert len({pause(1, None) for _ in range(20)}) > 10


def test_no_more_requests_are_under_way_than_the_recipe_allows(start: Start) -> None:
    server = start(pause=0.03)
    asked(server, *map(str, range(20)), concurrency=3)
    assert server.most == 3


def test_another_seed_model_or_sampling_is_another_request_and_another_address_is_not(
    start: Start, tmp_path: Path
) -> None:
    server, store = start(), Answers(tmp_path / "a.sqlite")
    Chat(endpoint(server), store).run([say("x"), say("x", seed=1)])
    asked(server, "x", answers=store, model="n")
    asked(server, "x", answers=store, temperature=0.1)
    assert len(server.bodies) == 4
    elsewhere = start()
    asked(elsewhere, "x", answers=store)
    assert elsewhere.bodies == []


def test_sampling_is_the_papers_unless_the_recipe_says_otherwise(start: Start) -> None:
    server = start()
    asked(server, "x")
    asked(server, "y", frequency_penalty=None)
    first, second = server.bodies
    given = {k: v for k, v in first.items() if k != "messages"}
    assert given == {
        "model": "m", "temperature": 0.6, "top_p": 0.8, "frequency_penalty": 0.6, "presence_penalty": 0.8,
        "max_tokens": 1024,
    }  # fmt: skip
    assert "frequency_penalty" not in second


def test_an_endpoint_that_is_not_there_is_one_line_and_keeps_what_was_answered(start: Start, tmp_path: Path) -> None:
    store = Answers(tmp_path / "a.sqlite")
    asked(start(), "one", answers=store)
    with pytest.raises(Unanswered, match="no connection") as info:
        Chat(endpoint("http://127.0.0.1:9/v1"), store).run([say("one"), say("two")])
    assert info.value.exit_code == 1
    assert Chat(endpoint("http://127.0.0.1:9/v1"), store).run([say("one")]) == ["one"]


def test_a_server_that_never_recovers_ends_after_the_tries_of_the_recipe(start: Start) -> None:
    server = start(*["503"] * 9)
    with pytest.raises(Unanswered, match="HTTP 503, 3 tries"):
        asked(server, "x", tries=3)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(("status", "hint"), [("401", "key"), ("403", "key"), ("404", "model")])
def test_a_refusal_for_good_is_not_tried_again(start: Start, status: str, hint: str) -> None:
    server = start(*[status] * 9)
    with pytest.raises(DataError, match=hint):
        asked(server, "x")
    assert len(server.bodies) == 1


def test_one_refused_request_is_its_own_fault_and_refusing_all_is_the_recipes(start: Start) -> None:
    server = start("400")
    with pytest.raises(Refused):
        asked(server, "x")

    async def forgiving(chat: Chat, text: str) -> str:
        try:
            return (await chat.ask([{"role": "user", "content": text}])).text
        except Refused:
            return "refused"

    talks = [partial(forgiving, text=str(n)) for n in range(9)]
    assert Chat(endpoint(start("400")), Answers(None)).run(talks[:5]) == ["refused"] * 5
    with pytest.raises(DataError, match="every request"):
        Chat(endpoint(start("400")), Answers(None)).run(talks)


def test_an_endpoint_that_answered_once_may_refuse_any_number_of_requests(start: Start) -> None:
    server = start()

    async def talk(chat: Chat) -> int:
        refused = 0
        for number in range(12):
            try:
                await chat.ask([{"role": "user", "content": str(number)}])
            except Refused:
                refused += 1
            server.faults = ["400"]
        return refused

    assert Chat(endpoint(server), Answers(None)).run([talk]) == [11]


def test_the_key_comes_from_the_environment_and_stands_in_no_file(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, path = start(), tmp_path / "a.sqlite"
    with pytest.raises(RecipeError, match="CLINIC_KEY is not set"):
        asked(server, "x", key_env="CLINIC_KEY")
    monkeypatch.setenv("CLINIC_KEY", "sk-very-secret")
    asked(server, "x", key_env="CLINIC_KEY", answers=Answers(path))
    assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"] == "Bearer sk-very-secret"
    assert b"very-secret" not in path.read_bytes()


def test_what_is_asked_stands_in_no_error_and_no_log(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for fault in ("500", "401", "400", "json", "close"):
        with pytest.raises((PolyclinicError, Refused)) as info:
            asked(start(*[fault] * 3), TOLD, tries=2)
        chain: BaseException | None = info.value
        while chain is not None and not chain.__suppress_context__:
            assert "Zubayda" not in str(chain)
            chain = chain.__cause__ or chain.__context__
        assert "Zubayda" not in str(info.value)
    assert "Zubayda" not in caplog.text


def test_without_the_client_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"polyclinic\[openai\]") as info:
        Chat(endpoint("http://127.0.0.1:9/v1"), Answers(None)).run([say("x")])
    assert info.value.exit_code == 6


def test_a_redirect_is_not_followed(start: Start) -> None:
    server = start("307")
    with pytest.raises(DataError, match="307"):
        asked(server, "x")


ASKER = """
import sys
from pathlib import Path
from polyclinic.corpus.ask.answers import Answers
from polyclinic.corpus.ask.chat import Chat
from polyclinic.corpus_section import EndpointSection
def say(text):
    async def talk(chat):
        return (await chat.ask([{"role": "user", "content": text}])).text
    return talk
section = EndpointSection(base_url=sys.argv[1], model="m", concurrency=4)
Chat(section, Answers(Path(sys.argv[2]))).run([say(f"question {n}") for n in range(40)])
"""


def test_after_a_kill_no_answered_request_is_sent_again(start: Start, tmp_path: Path) -> None:
    server = start(pause=0.05)
    command = [sys.executable, "-c", ASKER, server.url, str(tmp_path / "a.sqlite")]
    first = subprocess.Popen(command)
    while len(server.answered) < 10:
        time.sleep(0.01)
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = len([key for key in server.answered if key])
    server.pause = 0.0
    section = EndpointSection(base_url=server.url, model="m", concurrency=4)
    questions = [f"question {n}" for n in range(40)]
    assert Chat(section, Answers(tmp_path / "a.sqlite")).run([say(text) for text in questions]) == questions
    # only what was under way at the kill, at most the four of its concurrency, may come twice
    twice = [key for key in set(server.answered) if server.answered.count(key) > 1]
    assert kept >= 10
    assert len(twice) <= 4
    assert len(set(server.answered)) == 40


def _keep(path: str, who: int) -> list[str]:
    store = Answers(Path(path))
    return [store.keep(str(n), Answer(f"{who} says {n}", "stop", 1, 1)).text for n in range(60)]


def test_several_processes_agree_on_each_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sqlite")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(_keep, path), range(2)))
    assert found[0] == found[1]


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match="damaged"):
        Answers(path).get("x")


def test_what_a_store_returns_is_what_was_kept(tmp_path: Path) -> None:
    answer = Answer("tekst ឫ \u0000 😀", "length", None, 4)
    Answers(tmp_path / "a.sqlite").keep("k", answer)
    assert Answers(tmp_path / "a.sqlite").get("k") == answer
    assert [p.name for p in tmp_path.iterdir()] == ["a.sqlite"]
