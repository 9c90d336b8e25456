"""Identification: a text in another language is found; what cannot be checked is said to be so."""

import pyarrow as pa
import pytest

from polyclinic.corpus import starter
from polyclinic.corpus.identify import MIN_CHARACTERS, Identifier, alike, identify
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.families import fifty
from polyclinic.languages import all_languages
from polyclinic.records import Document, Turn


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier(fifty())


def texts(topic: str = "malaria_nets") -> dict[str, str]:
    return {d.language: d.text() for d in starter.documents() if d.id.split(":")[1] == topic}


def test_no_text_of_the_starter_corpus_is_taken_for_another_language(identifier: Identifier) -> None:
    verdicts = {d.id: identifier.verdict(d.text(), d.language) for d in starter.documents()}
    assert {k: v for k, v in verdicts.items() if v.startswith("looks like")} == {}


def test_every_checkable_language_is_told_from_its_neighbour_in_the_list(identifier: Identifier) -> None:
    codes = sorted(identifier.known)
    text = texts()
    for code, other in zip(codes, codes[1:] + codes[:1], strict=True):
        if not any({code, other} <= group for group in alike()):
            assert identifier.verdict(text[other], code).startswith("looks like"), (code, other)


def test_a_language_without_a_model_is_not_checked_and_never_ok(identifier: Identifier) -> None:
    unknown = set(fifty()) - identifier.known
    assert unknown  # py3langid's list of languages lacks some of the fifty
    for code in unknown:
        assert identifier.verdict(texts()["en"], code) == "not checked"


def test_a_short_text_is_not_checked(identifier: Identifier) -> None:
    text = texts()["en"]
    assert identifier.verdict(text[: MIN_CHARACTERS - 1], "ru") == "not checked"
    assert identifier.verdict(text[: 2 * MIN_CHARACTERS], "ru") == "looks like en"


def test_with_one_language_to_choose_nothing_counts_as_checked() -> None:
    assert Identifier(["en", "bm"]).verdict(texts()["ru"], "en") == "not checked"


def test_only_wanted_languages_are_found() -> None:
    two = Identifier(["en", "ja"])
    assert two.known == {"en", "ja"}
    assert two.verdict(texts()["zh"], "en") == "looks like ja"


def test_languages_not_told_apart_pass_for_each_other(identifier: Identifier) -> None:
    text = texts()
    for group in alike():
        assert group <= set(all_languages())
        for code in group & set(text):
            for other in group & set(text):
                assert identifier.verdict(text[code], other) in ("ok", "not checked"), (code, other)


@pytest.mark.parametrize(("drop", "verb"), [(True, "dropped"), (False, "language")])
def test_a_batch_counts_the_strangers_and_drops_them_if_asked(identifier: Identifier, drop: bool, verb: str) -> None:
    text = texts()
    given = [("en", text["en"]), ("en", text["ru"]), ("bm", text["bm"]), ("ru", text["ru"])]
    documents = [Document(str(i), code, "s", "l", "g", (Turn("text", t),)) for i, (code, t) in enumerate(given)]
    batch = pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS)
    step = identify(batch, identifier, drop)
    assert step.counts == {f"{verb}: en looks like ru": 1, "language: bm not checked": 1}
    assert step.batch.column("id").to_pylist() == (["0", "2", "3"] if drop else ["0", "1", "2", "3"])
