"""Rewriting: two calls a passage, and nothing that does not rest on the passage gets through."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from failing_server import Badly, serve

from polyclinic.corpus.ask import chat as chatting
from polyclinic.corpus.ask.answers import Answers
from polyclinic.corpus.ask.chat import Chat
from polyclinic.corpus.ask.grounding import cut, mentions, support, unsupported_numbers
from polyclinic.corpus.ask.prompting import rewriting
from polyclinic.corpus.ask.rewrite import rewrite
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import CorpusSection, RewriteSection
from polyclinic.errors import PolyclinicError, RecipeError
from polyclinic.families import fifty
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn
from polyclinic.runs import sha256_file

PASSAGE = "Dengue fever is caused by a virus that mosquitoes carry. Symptoms begin 3 to 14 days after a bite."
QUESTION = "What causes dengue fever and when do its symptoms begin?"
ANSWER = "Dengue fever is caused by a virus carried by mosquitoes; symptoms begin 3 to 14 days after the bite."
CASES = [
    (ANSWER, None),
    ("By a virus.", "answer too short"),
    (ANSWER.replace("14", "15"), "answer has numbers that the passage lacks"),
    (
        "Wash both hands thoroughly using soap, especially before preparing meals.",
        "answer does not rest on the passage",
    ),
    ("According to the passage, " + ANSWER, "answer mentions the passage"),
    ("ENGLISH? NO. " + ANSWER, "answer in another language"),
]


def document(name: str, text: str = PASSAGE, role: Any = "text", language: str = "en", source: str = "s") -> Document:
    return Document(name, language, source, "CC0-1.0", "g" + name, (Turn(role, text),), category="web", url="u")


def batch(*documents: Document) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS)


def verdict(text: str, declared: str) -> str:
    return "looks like de" if text.startswith("ENGLISH? NO.") else "ok"


@pytest.fixture
def server() -> Iterator[Badly]:
    made = Badly([], answer=lambda messages, body: QUESTION)
    serve(made)
    yield made
    made.shutdown()
    made.server_close()


def answering(answer: str | Callable[[str], str]) -> Callable[[Any, Any], str]:
    def reply(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        prompt = messages[-1]["content"]
        if "Question:" not in prompt:
            return QUESTION
        return answer if isinstance(answer, str) else answer(prompt)

    return reply


def section(server: Badly, **settings: Any) -> RewriteSection:
    endpoint = {"base_url": server.url, "model": "writer", "timeout_s": 5.0, "tries": 3}
    return RewriteSection.model_validate({"endpoint": endpoint, **settings})


def rewritten(server: Badly, *documents: Document, **settings: Any) -> Any:
    asked = section(server, **settings)
    return rewrite(batch(*documents), lambda: Chat(asked.endpoint, Answers(None)), asked, verdict)


@pytest.mark.parametrize(("answer", "reason"), CASES)
def test_a_question_and_answer_stays_only_if_it_rests_on_the_passage(
    server: Badly, answer: str, reason: str | None
) -> None:
    server.answer = answering(answer)
    result = rewritten(server, document("a"))
    assert result.batch.num_rows + result.dropped.num_rows == 1
    assert result.dropped.column("reason").to_pylist() == ([reason] if reason else [])
    if reason is None:
        made = Document.from_row(result.batch.to_pylist()[0])
        assert made.turns == (Turn("user", QUESTION), Turn("assistant", answer))
        old = document("a")
        assert made.id == "a#qa"
        assert (made.source, made.licence, made.group, made.url, made.category) == (
            old.source, old.licence, old.group, old.url, old.category
        )  # fmt: skip
        assert result.counts["rewrite: written by writer"] == 1
        assert result.counts["rewrite: requests"] == 2
        assert result.counts["rewrite: tokens sent"] == 14
        assert result.counts["rewrite: tokens received"] == 6


def test_a_passage_is_named_in_no_question_that_stays(server: Badly) -> None:
    server.answer = lambda messages, body: "What does this text say about fever?"
    result = rewritten(server, document("a"))
    assert result.dropped.column("reason").to_pylist() == ["question mentions the passage"]
    assert len(server.bodies) == 1


def test_the_second_call_has_question_and_passage_and_the_first_the_passage(server: Badly) -> None:
    server.answer = answering(ANSWER)
    rewritten(server, document("a"))
    first, second = (body["messages"][-1]["content"] for body in server.bodies)
    assert PASSAGE in first
    assert QUESTION not in first
    assert PASSAGE in second
    assert QUESTION in second


def test_an_answer_that_reached_the_limit_of_tokens_is_not_taken(server: Badly) -> None:
    server.finish = "length"
    assert rewritten(server, document("a")).dropped.column("reason").to_pylist() == ["question was cut off"]


def test_passages_that_were_cut_and_answers_without_a_count_of_tokens_are_counted(server: Badly) -> None:
    server.answer, server.counts_tokens = answering(ANSWER), False
    counts = rewritten(
        server, document("a"), document("b", f"{PASSAGE} {'More. ' * 99}"), passage_characters=300
    ).counts
    assert counts["rewrite: passage cut"] == 1
    assert counts["rewrite: answers without a token count"] == counts["rewrite: requests"] == 4


def test_an_answer_in_another_language_is_asked_for_once_more_with_another_seed(server: Badly) -> None:
    seeds = iter(["ENGLISH? NO. Nein.", ANSWER])
    server.answer = answering(lambda prompt: next(seeds))
    assert rewritten(server, document("a")).batch.num_rows == 1
    assert [body.get("seed") for body in server.bodies] == [None, None, 1]


def test_dialogues_and_other_sources_stay_and_are_not_sent(server: Badly) -> None:
    server.answer = answering(ANSWER)
    result = rewritten(server, document("a", role="user"), document("b", source="t"), document("c"), sources=["s"])
    assert [row["id"] for row in result.batch.to_pylist()] == ["a", "b", "c#qa"]
    assert len(server.bodies) == 2
    assert rewritten(server, document("b"), categories=["exam"]).batch.to_pylist()[0]["id"] == "b"


def test_a_refused_passage_is_dropped_and_the_rest_goes_on(server: Badly) -> None:
    server.answer = answering(ANSWER)
    server.faults = ["422"]
    result = rewritten(server, document("a"))
    assert result.dropped.column("reason").to_pylist() == ["refused by the endpoint (HTTP 422)"]


@pytest.mark.parametrize(
    ("text", "limit", "beginning"),
    [
        ("One. Two. Three.", 11, "One. Two."),
        ("一。二。三。", 5, "一。二。"),
        ("पहला। दूसरा। तीसरा।", 14, "पहला। दूसरा।"),
        ("para one\npara two", 12, "para one"),
        ("no end at all here", 6, "no end"),
        ("short", 9, "short"),
    ],
)
def test_a_long_passage_ends_with_a_sentence(text: str, limit: int, beginning: str) -> None:
    assert cut(text, limit) == beginning


def test_support_is_the_share_of_words_that_the_passage_has() -> None:
    assert support("mosquitoes carry dengue", PASSAGE) == 1.0
    assert support("mosquito carrying dengue somewhere", PASSAGE) == pytest.approx(0.5, abs=0.26)
    assert support("nothing whatever alike", PASSAGE) == 0.0
    assert support("登革热由病毒引起", "登革热由蚊子传播的病毒引起。") > 0.8
    assert support("心脏病发作", "登革热由蚊子传播的病毒引起。") == 0.0


def test_numbers_are_compared_in_all_digits_and_a_list_may_count() -> None:
    assert unsupported_numbers("१४ दिन", "14 days") == []
    assert unsupported_numbers("1. rest\n2. drink\nFor 14 days", "14 days") == []
    assert unsupported_numbers("COVID-19 lasts 10 days", "lasts 10 days") == []
    assert unsupported_numbers("5 mg", "2.5 mg") == ["5"]


def test_a_phrase_is_found_as_words_not_inside_them() -> None:
    assert mentions("As THIS Text says", ["this text"])
    assert not mentions("this texture", ["this text"])
    assert mentions("根据材料，患者应", ["根据材料"])


def test_all_fifty_languages_have_prompts_and_one_without_names_the_file(tmp_path: Path) -> None:
    for code in fifty():
        filled = rewriting(code)
        assert "{passage}" in filled.question
    with pytest.raises(RecipeError, match=r"pl\.yaml") as info:
        rewriting("pl")
    assert info.value.exit_code == 3
    (tmp_path / "pl.yaml").write_text("question: 'Q {passage}'\nanswer: 'A {passage}'\n")
    with pytest.raises(RecipeError, match="answer"):
        rewriting("pl", str(tmp_path))


def corpus(tmp_path: Path, server: Badly, **settings: Any) -> CorpusSection:
    endpoint = {"base_url": server.url, "model": "writer", "timeout_s": 5.0, "tries": 3}
    return CorpusSection.model_validate(
        {
            "texts": [{"path": "*.jsonl"}], "root": str(tmp_path), "languages": ["en"], "held_out": 0.0,
            "check_language": "report", "dedup": {"near": False}, "rewrite": {"endpoint": endpoint}, **settings,
        }
    )  # fmt: skip


def test_a_build_with_two_workers_or_after_a_failure_has_the_same_bytes_and_asks_nothing_twice(
    tmp_path: Path, server: Badly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatting, "FIRST_PAUSE", 0.01)
    for name in "ab":
        rows = [{"id": f"{name}{n}", "language": "en", "text": f"Case {name}{n}. {PASSAGE}"} for n in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drift = iter(range(1000))  # a model that never says the same twice
    server.answer = answering(lambda prompt: f"{ANSWER} Now {'very ' * next(drift)}sure.")

    def made(name: str, **settings: Any) -> dict[str, str]:
        (tmp_path / name).mkdir()
        build(corpus(tmp_path, server, **settings), tmp_path / name, Silent(), tmp_path / "shards")
        paths = sorted((tmp_path / name).rglob("*.parquet"))
        return {p.relative_to(tmp_path / name).as_posix(): sha256_file(p) for p in paths}

    broken = partial(made, "broken")
    server.faults = ["503"] * 3
    with pytest.raises(PolyclinicError):
        broken()
    server.faults = []
    first, asked = made("one"), len(server.bodies)
    for folder in ("clean", "decide", "select"):
        (tmp_path / "shards" / folder).rename(tmp_path / f"old-{folder}")
    assert made("two", workers=2) == first
    assert len(server.bodies) == asked
    found = [d.id for d in read_documents(tmp_path / "two")]
    assert found == [f"{name}{n}#qa" for name in "ab" for n in range(6)]
