"""Identification: a text in another language or script is found; what cannot be checked is said to be so."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from polyclinic.corpus import starter
from polyclinic.corpus.identify.identify import (
    BUILTIN,
    MODEL,
    Identifier,
    alike,
    detector,
    identify,
    own_scripts,
    version,
)
from polyclinic.corpus.identify.ngrams import Model, load
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.errors import DataError
from polyclinic.families import fifty
from polyclinic.languages import all_languages
from polyclinic.records import Document, Turn

SERBIAN = "Malarija je bolest koju prenose komarci. Spavajte pod mrežom i potražite pomoć čim dobijete groznicu."
ROMANISED = "Khaansee aur bukhaar hone par paani peejiye, aaraam keejiye, aur doctor se salaah leejiye, kripya."


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier(detector(BUILTIN, fifty()))


def texts(topic: str = "malaria_nets") -> dict[str, str]:
    return {d.language: d.text() for d in starter.documents() if d.id.split(":")[1] == topic}


def test_the_package_holds_a_small_model_of_all_fifty() -> None:
    path = Path(__file__).parents[2] / "src/polyclinic/data" / MODEL
    assert set(load(path).labels) == set(fifty())
    assert path.stat().st_size < 5_000_000


def test_every_text_of_the_starter_corpus_is_in_its_language(identifier: Identifier) -> None:
    verdicts = {d.id: identifier.verdict(d.text(), d.language) for d in starter.documents()}
    assert {k: v for k, v in verdicts.items() if v != "ok"} == {}


def test_every_language_is_told_from_its_neighbours_in_the_list(identifier: Identifier) -> None:
    codes, text = sorted(fifty()), texts()
    for step in (1, 2):
        for code, other in zip(codes, codes[step:] + codes[:step], strict=True):
            if not any({code, other} <= group for group in alike()):
                found = identifier.verdict(text[other], code).removeprefix("looks like ")
                assert any({found, other} <= group for group in (*alike(), {other})), (code, other, found)


@pytest.fixture(scope="module")
def beyond() -> Identifier:
    return Identifier(detector(BUILTIN, ["nl", "de", "mi"]))


def test_a_language_that_only_the_other_model_knows_is_checked_if_wanted(
    identifier: Identifier, beyond: Identifier
) -> None:
    dutch = "Drink veel water, neem rust en ga naar de huisarts als de koorts na drie dagen niet gezakt is."
    assert beyond.verdict(dutch, "nl") == "ok"
    assert beyond.verdict(dutch, "de") == "looks like nl"
    assert beyond.verdict(texts()["de"], "nl") == "looks like de"
    assert identifier.verdict(dutch, "nl") == "not checked"


def test_a_language_that_no_model_knows_is_not_checked_and_never_ok(beyond: Identifier) -> None:
    assert "mi" in all_languages()
    assert "mi" not in beyond.known
    assert beyond.verdict(texts()["en"], "mi") == "not checked"
    assert beyond.verdict(texts()["th"], "mi") == "looks like th"


@pytest.mark.parametrize("code", ["en", "ru", "zh"])
def test_a_text_too_short_to_tell_is_not_checked(identifier: Identifier, code: str) -> None:
    text = texts()[code]
    assert identifier.verdict(text[:9], code) == identifier.verdict("12.5 % (3)", code) == "not checked"
    assert identifier.verdict(text[:60], code) == "ok"
    assert identifier.verdict(text[:20], code) == ("ok" if code == "zh" else "not checked")


def test_a_short_text_is_judged_by_its_script_alone(identifier: Identifier) -> None:
    assert identifier.verdict("Лихорадка и кашель", "en") == "in script Cyrl"
    assert identifier.verdict("fever and cough today", "de") == "not checked"
    assert identifier.verdict("fever and cough today", "ru") == "other script Latn"


def test_languages_not_told_apart_pass_for_each_other_in_a_script_of_theirs(identifier: Identifier) -> None:
    for group in alike():
        assert group <= set(all_languages())
    for declared in ("bs", "hr"):
        assert identifier.verdict(SERBIAN, declared) == "ok"
    assert identifier.verdict(SERBIAN, "sr") == "other script Latn"
    cyrillic = texts()["sr"]
    assert identifier.verdict(cyrillic, "sr") == "ok"
    assert identifier.verdict(cyrillic, "bs") == "other script Cyrl"
    assert identifier.verdict(cyrillic, "hr") == "looks like sr"


def test_a_romanised_text_is_reported_unless_it_is_clearly_another_language(identifier: Identifier) -> None:
    assert identifier.verdict(texts()["en"], "hi") == "looks like en"
    assert identifier.verdict(ROMANISED[:45], "hi") == "other script Latn"


def test_names_and_terms_in_another_script_do_not_make_it_another_language(identifier: Identifier) -> None:
    mixed = "Amoxicillin, ibuprofen, paracetamol, ciprofloxacin, azithromycin " + texts()["th"][:40]
    assert identifier.verdict(mixed, "th") == "ok"


def test_a_long_text_is_judged_by_its_first_middle_and_last_part(identifier: Identifier) -> None:
    english, thai = texts()["en"] * 2, texts()["th"] * 10
    assert identifier.verdict(english + thai, "th") == "ok"
    assert identifier.verdict(english[:100] + thai, "en") == "looks like th"


def test_every_language_has_scripts_of_its_own() -> None:
    assert own_scripts("ja") == {"Kana", "Hani"}
    assert own_scripts("zh") == {"Hani"}
    assert all(own_scripts(code) for code in all_languages())


def test_a_model_of_a_users_own_decides_and_is_part_of_the_key(tmp_path: Path) -> None:
    own = tmp_path / "own.bin"
    weights = np.zeros((256, 2), dtype=np.int8)
    weights[:, 1] = 9  # whatever is read is Bambara
    Model(("co", "bm"), {"co": ["Latn"], "bm": ["Latn"]}, 1, weights).save(own)
    alone = Identifier(detector(str(own), ["co", "bm"]))
    assert alone.known == {"co", "bm"}
    assert alone.verdict(texts()["co"], "co") == "looks like bm"
    first = version(str(own))
    assert first != version(BUILTIN)
    Model(("co", "bm"), {"co": ["Latn"], "bm": ["Latn"]}, 2, weights).save(own)
    assert version(str(own)) != first


def test_where_our_model_is_not_sure_the_other_decides(tmp_path: Path) -> None:
    blank = Model(("de", "en"), {"de": ["Latn"], "en": ["Latn"]}, 1, np.zeros((256, 2), dtype=np.int8))
    blank.save(tmp_path / "blank.bin")
    both = Identifier(detector(str(tmp_path / "blank.bin"), ["de", "en"]))
    for code, other in (("de", "en"), ("en", "de")):
        assert both.verdict(texts()[code], code) == "ok"
        assert both.verdict(texts()[code], other) == f"looks like {code}"


def test_a_model_that_is_not_there_is_one_error() -> None:
    for call in (lambda: version("no.bin"), lambda: detector("no.bin", ["en"])):
        with pytest.raises(DataError, match=r"no\.bin"):
            call()


@pytest.mark.parametrize(("drop", "verb"), [(True, "dropped"), (False, "language")])
def test_a_batch_counts_the_strangers_and_drops_them_if_asked(identifier: Identifier, drop: bool, verb: str) -> None:
    text = texts()
    given = [("en", text["en"]), ("en", text["ru"]), ("sr", SERBIAN), ("ru", text["ru"]), ("th", "ไข้")]
    documents = [Document(str(i), code, "s", "l", "g", (Turn("text", t),)) for i, (code, t) in enumerate(given)]
    batch = pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS)
    step = identify(batch, identifier, drop)
    counts = {f"{verb}: en looks like ru": 1, "language: sr other script Latn": 1, "language: th not checked": 1}
    assert step.counts == counts
    assert step.batch.column("id").to_pylist() == (["0", "2", "3", "4"] if drop else ["0", "1", "2", "3", "4"])
