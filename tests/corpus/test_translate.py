"""Translating: copies that pass the audit stay, failing ones are repaired or dropped, and rows add up."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from failing_server import Badly, serve

from polyclinic.corpus.ask.answers import Answers
from polyclinic.corpus.ask.audit import Audit, Finding
from polyclinic.corpus.ask.chat import Chat
from polyclinic.corpus.ask.command import by_command
from polyclinic.corpus.ask.glossary import Entry, Glossary
from polyclinic.corpus.ask.translate import Rules, by_chat, improves, translate
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.step import DROPPED, Outcome, made
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import CorpusSection, TranslateSection
from polyclinic.errors import DataError, PolyclinicError, RecipeError
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn

GLOSSARY = Glossary([Entry("en", "fever", "es", "fiebre"), Entry("en", "vaccine", "es", "vacuna")])
GOOD = "La vacuna no causa fiebre después de 14 días."
BAD = "La vacuna no causa tos después de 14 días."
SOURCE = "The vaccine does not cause a fever after 14 days."


def document(name: str = "a", language: str = "en", *contents: str, source: str = "s") -> Document:
    turns = tuple(Turn("text", text) for text in contents or (SOURCE,))
    return Document(name, language, source, "CC0-1.0", "g" + name, turns, url="u")


def batch(*documents: Document) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS)


def translated(server: Badly, record: Path, *documents: Document, **settings: Any) -> Outcome:
    endpoint = {"base_url": server.url, "model": "m", "timeout_s": 5.0, "tries": 3}
    section = TranslateSection.model_validate({"to": ["es"], "endpoint": endpoint, **settings})
    rules = Rules(GLOSSARY, {}, lambda text, code: "not checked", section)
    assert section.endpoint is not None
    chat = Chat(section.endpoint, Answers(None))
    return translate(batch(*documents), section, lambda: lambda jobs: by_chat(jobs, chat, rules), record)


@pytest.fixture
def server() -> Iterator[Badly]:
    running = Badly([])
    serve(running)
    yield running
    running.shutdown()
    running.server_close()


def saying(server: Badly, *answers: str) -> None:
    rest = iter(answers)
    server.answer = lambda messages, body: next(rest)


def test_a_copy_that_passes_stands_behind_its_source_and_keeps_its_origin(server: Badly, tmp_path: Path) -> None:
    saying(server, GOOD)
    result = translated(
        server, tmp_path / "t", document("a"), document("b", "fr"), document("c", "es"), languages=["en"]
    )
    rows = [Document.from_row(row) for row in result.batch.to_pylist()]
    assert [(d.id, d.language) for d in rows] == [("a", "en"), ("b", "fr"), ("c", "es"), ("a#from-en", "es")]
    copy, old = rows[3], rows[0]
    assert copy.turns == (Turn("text", GOOD),)
    assert (copy.source, copy.licence, copy.group, copy.url) == (old.source, old.licence, old.group, old.url)
    assert made(result.counts) == 1
    assert result.counts["audit: es term found"] == 2


def test_what_is_in_the_wanted_language_or_too_long_is_not_sent(server: Badly, tmp_path: Path) -> None:
    saying(server, GOOD)
    long = document("b", "en", SOURCE * 2)
    result = translated(server, tmp_path / "t", document(), long, to=["en", "es"], max_characters=len(SOURCE))
    assert [(row["id"], row["language"]) for row in result.batch.to_pylist()][2:] == [("a#from-en", "es")]
    assert len(server.bodies) == 1


def test_the_prompt_holds_the_glossarys_forms(server: Badly, tmp_path: Path) -> None:
    saying(server, GOOD)
    translated(server, tmp_path / "t", document())
    prompt = server.bodies[0]["messages"][0]["content"]
    assert "fever = fiebre" in prompt
    assert SOURCE in prompt


def test_a_failing_copy_is_repaired_and_both_versions_are_recorded(server: Badly, tmp_path: Path) -> None:
    saying(server, BAD, GOOD)
    result = translated(server, tmp_path / "t", document())
    assert result.batch.to_pylist()[1]["turns"][0]["content"] == GOOD
    assert result.counts["translate: repaired"] == 1
    repair = server.bodies[1]["messages"][0]["content"]
    assert "fever must be translated as fiebre" in repair
    assert BAD in repair
    (row,) = map(json.loads, (tmp_path / "t").read_text("utf-8").splitlines())
    assert (row["draft"], row["last"], row["repairs"], row["dropped"]) == ([BAD], [GOOD], 1, None)


def test_two_rounds_are_the_end_and_the_reason_names_the_check(server: Badly, tmp_path: Path) -> None:
    saying(server, BAD, BAD.replace("tos", "dolor"), BAD.replace("tos", "sueño"), GOOD)
    result = translated(server, tmp_path / "t", document())
    assert [row["id"] for row in result.batch.to_pylist()] == ["a"]
    assert result.dropped.column("reason").to_pylist() == ["translation fails: term"]
    assert result.dropped.column("language").to_pylist() == ["es"]
    assert len(server.bodies) == 3
    assert made(result.counts) == 1


def test_a_repair_that_breaks_another_check_is_not_taken(server: Badly, tmp_path: Path) -> None:
    saying(server, BAD, GOOD.replace("14", "15"), GOOD.replace("no ", ""))
    result = translated(server, tmp_path / "t", document())
    assert result.dropped.num_rows == 1
    assert json.loads((tmp_path / "t").read_text("utf-8"))["last"] == [BAD]


def test_some_terms_may_lack_if_the_recipe_says_so(server: Badly, tmp_path: Path) -> None:
    saying(server, BAD)
    assert translated(server, tmp_path / "t", document(), min_term_recall=0.5).batch.num_rows == 2


def test_only_the_failing_turn_of_a_dialogue_is_asked_for_again(server: Badly, tmp_path: Path) -> None:
    saying(server, "¿Tiene fiebre?", "Tiene 3 perros.", "Tiene 2 perros.")
    result = translated(server, tmp_path / "t", document("a", "en", "Any fever?", "He has 2 dogs."))
    contents = [turn["content"] for turn in result.batch.to_pylist()[1]["turns"]]
    assert contents == ["¿Tiene fiebre?", "Tiene 2 perros."]


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        (["term"], ["term", "term"], True),
        ([], ["number"], True),
        (["number"], ["term"], False),
        (["term"], ["term"], False),
        (["term"], ["number"], False),
        (["number", "unit"], ["number", "term"], False),
    ],
)
def test_a_repair_counts_if_something_rises_and_nothing_falls(new: list[str], old: list[str], better: bool) -> None:
    found = [Audit({}, [Finding(check, "x", "x") for check in checks]) for checks in (new, old)]  # type: ignore[arg-type]
    assert improves(*found) is better


PROGRAM = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    text = {good!r} if "faults" in row else {bad!r}
    print(json.dumps({{"id": row["id"], "text": text}}))
"""


def command_rules(*command: str) -> Rules:
    section = TranslateSection(to=["es"], command=list(command))
    return Rules(GLOSSARY, {}, lambda text, code: "ok", section)


def test_a_command_translates_and_repairs_over_json_lines(tmp_path: Path) -> None:
    program = tmp_path / "mt.py"
    program.write_text(PROGRAM.format(good=GOOD, bad=BAD), "utf-8")
    rules = command_rules(sys.executable, str(program))
    result = translate(
        batch(document("a"), document("b")), rules.section, lambda: lambda jobs: by_command(jobs, rules), tmp_path / "t"
    )
    assert [row["turns"][0]["content"] for row in result.batch.to_pylist()[2:]] == [GOOD, GOOD]
    assert result.counts["translate: repaired"] == 2


@pytest.mark.parametrize(
    ("code", "error", "what"),
    [
        ("raise SystemExit(4)", PolyclinicError, "ended with 4"),
        ("print('hello')", DataError, "not a line of id and text"),
        ('print(\'{"id": 0, "text": " "}\')', DataError, "empty"),
    ],
)
def test_a_command_that_fails_is_one_line(code: str, error: type[PolyclinicError], what: str, tmp_path: Path) -> None:
    rules = command_rules(sys.executable, "-c", code)
    with pytest.raises(error, match=what) as info:
        translate(batch(document()), rules.section, lambda: lambda jobs: by_command(jobs, rules), tmp_path / "t")
    assert "vaccine" not in str(info.value)
    by = command_rules("/nowhere/mt")
    with pytest.raises(DataError, match="cannot be started"):
        translate(batch(document()), by.section, lambda: lambda jobs: by_command(jobs, by), tmp_path / "t")


def test_a_build_adds_up_and_keeps_translations_with_their_source(tmp_path: Path, server: Badly) -> None:
    server.answer = lambda messages, body: GOOD if "Case 1" not in messages[-1]["content"] else BAD + " Caso 7777."
    rows = [{"id": str(n), "language": "en", "text": f"Case {n}: {SOURCE}"} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "g.csv").write_text("source_language,term,language,form\nen,fever,es,fiebre\n")
    endpoint = {"base_url": server.url, "model": "m", "timeout_s": 5.0, "tries": 3}
    settings: dict[str, Any] = {
        "texts": [{"path": "a.jsonl"}], "root": str(tmp_path), "languages": ["en", "es"], "check_language": "report",
        "dedup": None, "translate": {"endpoint": endpoint, "to": ["es"], "glossary": "g.csv"},
    }  # fmt: skip
    (tmp_path / "out").mkdir()
    facts = build(CorpusSection.model_validate(settings), tmp_path / "out", Silent())
    dropped = sum(n for reason, n in facts["counts"].items() if reason.startswith(DROPPED))
    assert (facts["rows_in"], facts["counts"]["made: translations"], facts["documents"], dropped) == (3, 3, 5, 1)
    found = list(read_documents(tmp_path / "out"))
    by_group = {d.group: {e.split for e in found if e.group == d.group} for d in found}
    assert all(len(splits) == 1 for splits in by_group.values())
    settings["translate"]["to"] = ["fr"]
    (tmp_path / "no").mkdir()
    with pytest.raises(RecipeError, match=r"not in corpus\.languages"):
        build(CorpusSection.model_validate(settings), tmp_path / "no", Silent())
