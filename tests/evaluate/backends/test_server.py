"""A server says what the local model says, or one line; its key stays where it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import apart, choices, written
from completions import FAULTS, Served
from lm_eval.api.instance import Instance

from polyclinic.errors import MissingDependencyError, UsageError
from polyclinic.evaluate.backends import kept
from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.evaluate.backends.server import Endpoint, ServerError, connect, vllm
from polyclinic.records import Question

FAILING = ["500", "429", "stall", "trickle", "hang up", *FAULTS]


@pytest.fixture(scope="module")
def running(models: dict[str, Path]) -> Iterator[Served]:
    served = Served(models["mixture"])
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def served(running: Served) -> Served:
    running.be("good")
    return running


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def pairs(questions: list[Question]) -> list[Instance]:
    return [request for request in choices(questions[:6]) if request.args[0]]


def endpoint(served: Served, models: dict[str, Path], **changes: Any) -> Endpoint:
    return Endpoint(
        **{"url": served.url, "model": "small", "tokenizer": models["mixture"], "max_length": 500, **changes}
    )


@pytest.mark.parametrize("concurrency", [1, 4])
def test_scores_are_those_of_the_local_model(
    served: Served, models: dict[str, Path], pairs: list[Instance], concurrency: int
) -> None:
    model = connect(endpoint(served, models, concurrency=concurrency), scores=True)
    served.be("good")
    assert apart(model.loglikelihood(pairs), LocalModel(models["mixture"]).loglikelihood(pairs)) < 1e-3
    assert len(served.bodies) == len(pairs)
    assert served.most == concurrency


def test_a_server_that_fails_once_is_asked_again(
    served: Served, models: dict[str, Path], pairs: list[Instance]
) -> None:
    model = connect(endpoint(served, models), scores=True)
    served.be("500 then good")
    assert apart(model.loglikelihood(pairs[:5]), LocalModel(models["mixture"]).loglikelihood(pairs[:5])) < 1e-3
    assert len(served.bodies) == 10


@pytest.mark.parametrize("mode", FAILING)
@pytest.mark.parametrize("scores", [True, False])
def test_a_server_that_fails_is_one_line_at_the_first_request(
    served: Served, models: dict[str, Path], mode: str, scores: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    served.be(mode)
    with pytest.raises(ServerError) as caught:
        connect(endpoint(served, models, tries=1, timeout=0.5), scores=scores)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "secret words" not in str(caught.value)
    assert "water" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert len(served.bodies) == 1


@pytest.mark.parametrize("mode", ["500", "stall", "bad JSON"])
def test_what_was_answered_before_a_server_failed_is_kept(
    served: Served,
    models: dict[str, Path],
    pairs: list[Instance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setitem(kept.CHUNKS, "loglikelihood", 1)
    place = endpoint(served, models, tries=1, timeout=0.5, concurrency=2)
    model = connect(place, scores=True)
    served.be(mode, after=30)
    with kept.opened(tmp_path) as store:
        with pytest.raises(ServerError):
            kept.Kept(model, store, place.facts()).loglikelihood(pairs)
        served.be("good")
        found = kept.Kept(model, store, place.facts()).loglikelihood(pairs)
    most = max(len(chunk) for chunk in kept.chunks(pairs, 1))
    assert len(pairs) - 30 <= len(served.bodies) < len(pairs) - 30 + most
    assert apart(found, LocalModel(models["mixture"]).loglikelihood(pairs)) < 1e-3


def test_a_server_without_log_probabilities_is_one_line_before_a_question_is_sent(
    served: Served, models: dict[str, Path]
) -> None:
    served.be("no logprobs")
    with pytest.raises(ServerError, match="gives no log-probabilities") as caught:
        connect(endpoint(served, models, tries=1), scores=True)
    assert caught.value.exit_code == 1
    assert len(served.bodies) == 1
    connect(endpoint(served, models, tries=1), scores=False)


def test_a_chat_is_not_asked_for_scores(served: Served, models: dict[str, Path], pairs: list[Instance]) -> None:
    with pytest.raises(ServerError, match="gives no log-probabilities"):
        connect(endpoint(served, models, chat=True), scores=True)
    assert served.bodies == []
    model = connect(endpoint(served, models, chat=True), scores=False)
    with pytest.raises(ServerError, match="gives no log-probabilities"):
        model.loglikelihood(pairs[:1])


def test_no_question_follows_a_redirect(served: Served, models: dict[str, Path]) -> None:
    served.be("redirect")
    with pytest.raises(ServerError):
        connect(endpoint(served, models, tries=1), scores=True)
    assert len(served.bodies) == 1


@pytest.mark.parametrize("changes", [{}, {"tokenizer": None}, {"chat": True}])
def test_what_is_written_is_what_the_local_model_writes(
    served: Served, models: dict[str, Path], questions: list[Question], changes: dict[str, Any]
) -> None:
    requests = written(questions[:6], until=["\n", "hand"])
    model = connect(endpoint(served, models, **changes), scores=False)
    served.be("good")
    assert model.generate_until(requests) == LocalModel(models["mixture"]).generate_until(requests)
    assert set(served.paths) == {"/v1/chat/completions" if "chat" in changes else "/v1/completions"}
    if "chat" in changes:
        asked = {body["messages"][0]["content"] for body in served.bodies}
        assert asked == {request.args[0] for request in requests}
        assert all(len(body["messages"]) == 1 for body in served.bodies)


def test_the_key_comes_from_its_variable_and_is_never_said(
    served: Served, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "not-a-real-value-412"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    place = endpoint(served, models, tries=1)
    connect(place, scores=True)
    assert served.headers[0]["Authorization"] == f"Bearer {key}"
    served.be("401")
    with pytest.raises(ServerError, match="check address, model and OPENAI_API_KEY") as caught:
        connect(place, scores=True)
    heard = capfd.readouterr()
    assert key not in str(caught.value) + heard.out + heard.err + repr(place.facts())


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://localhost/v1",
        "http://me:word@localhost/v1",  # pragma: allowlist secret
        "http://localhost/v1?key=word",
    ],
)
def test_an_address_that_is_none_or_holds_a_key_is_refused_unsaid(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(Endpoint(url, "m"), scores=False)
    assert "word" not in str(caught.value)


def test_scores_need_the_models_tokenizer(served: Served, models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="tokenizer"):
        connect(endpoint(served, models, tokenizer=None), scores=True)
    assert served.bodies == []


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"url": "http://localhost:1/v1"}, {"chat": True}, {"max_length": 7}]
)
def test_facts_tell_endpoints_apart(served: Served, models: dict[str, Path], change: dict[str, Any]) -> None:
    assert endpoint(served, models).facts() != endpoint(served, models, **change).facts()
    assert endpoint(served, models).facts() == endpoint(served, models, timeout=1, tries=9, concurrency=2).facts()


def test_a_server_that_is_not_there_is_one_line(models: dict[str, Path]) -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        connect(Endpoint("http://127.0.0.1:9/v1", "m", tries=1), scores=False)


def test_packages_that_are_missing_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError, match=r"polyclinic\[vllm\]") as caught:
        vllm(Path("nowhere"))
    assert caught.value.exit_code == 6
    monkeypatch.setattr("lm_eval.models.api_models.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"polyclinic\[server\]"):
        connect(Endpoint("http://127.0.0.1:9/v1", "m"), scores=False)
