"""The audit of a translation: each kind of fault is found, and what is faithful passes."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from polyclinic.cli import main
from polyclinic.corpus.ask.audit import Limits, Norms, Pair, audit, copied, units
from polyclinic.corpus.ask.folding import digits, fold, numbers, table
from polyclinic.corpus.ask.forms import present, present_inflected
from polyclinic.corpus.ask.glossary import Entry, Glossary, read
from polyclinic.corpus.ask.norms import learn, read_norms, write_norms
from polyclinic.errors import DataError
from polyclinic.families import fifty

TERMS = Glossary(
    [
        Entry("en", "fever", "es", "fiebre", "symptom"),
        Entry("en", "dengue fever", "es", "dengue", "disease"),
        Entry("en", "vaccine", "es", "vacuna", "drug"),
        Entry("en", "fever", "ar", "حمى"),
        Entry("en", "fever", "zh", "发热"),
        Entry("en", "fever", "zh", "发烧"),
        Entry("en", "fever", "hi", "बुख़ार"),
    ]
)


def failing(source: str, target: str, language: str = "es", **more: Any) -> list[str]:
    found = audit(Pair("en", language, source, target), TERMS, **more)
    return [f.check for f in found.findings]


def test_folding_makes_one_of_what_is_written_in_several_ways() -> None:
    assert fold("حُمَّى") == fold("حمی")
    assert fold("בְּרִיאוּת") == fold("בריאות")
    assert fold("बुख़ार") == fold("बुख़ार") == fold("बुखार")
    assert fold("Ｆｅｖｅｒ—STRAẞE") == "fever strasse"
    assert fold("क्षय रोग") == "क्षय रोग"  # vowel signs of Indic scripts are no optional marks


@pytest.mark.parametrize(
    ("source", "target", "language", "wrong"),
    [
        ("He has a fever.", "Tiene fiebre.", "es", []),
        ("He has a fever.", "Tiene tos.", "es", ["term"]),
        ("He has a fever.", "他发烧了。", "zh", []),
        ("He has a fever.", "他咳嗽了。", "zh", ["term"]),
        ("He has a fever.", "لديه حُمّى.", "ar", []),
        ("He has a fever.", "उसे बुखार है।", "hi", []),
        ("Take 5 mg for 14 days.", "Tome 5 mg durante 14 días.", "es", []),
        ("Take 5 mg for 14 days.", "Tome 5 mg durante 15 días.", "es", ["number"]),
        ("Take 5 mg for 14 days.", "Tome 5 mg durante dos semanas.", "es", ["number", "unit"]),
        ("Take 50 mg for 14 days.", "१४ दिन तक ५० मिग्रा लें।", "hi", []),
        ("Take 50 mg for 14 days.", "१४ दिन तक ५० ग्राम लें।", "hi", ["unit"]),
        ("Take 5 mg for 14 days.", "Tome 5 g durante 14 días.", "es", ["unit"]),
        ("Some 1.2 million people fell ill.", "约120万人患病。", "zh", []),
        ("Some 1.2 million people fell ill.", "约130万人患病。", "zh", ["number"]),
        ("About 1,000 of 3.5 kg", "Unos 1000 de 3,5 kg", "es", []),
        ("one in North, 1 in South and 2 in West", "1 al norte, 4 al sur y 2 al oeste", "es", ["number"]),
        ("COVID-19 is new.", "Esta enfermedad es nueva.", "es", []),
        ("It does not hurt.", "No duele.", "es", []),
        ("It does not hurt.", "Duele mucho.", "es", ["negation"]),
        ("It doesn't hurt.", "疼痛很轻。", "zh", ["negation"]),
        ("It does not hurt.", "它不疼。", "zh", []),
        ("Never mix them.", "Usizichanganye kamwe.", "sw", []),
        ("The patient was seen by a nurse at the clinic in the evening.", "Visto.", "es", ["length"]),
        ("The patient was seen by a nurse.", "The patient was seen by a nurse.", "es", ["language"]),
    ],
)  # fmt: skip
def test_a_fault_is_found_and_what_is_faithful_passes(
    source: str, target: str, language: str, wrong: list[str]
) -> None:
    assert failing(source, target, language, limits=Limits(deviations=3.6 if language == "zh" else 3.0)) == wrong


def test_the_longest_term_counts_and_a_plural_is_one() -> None:
    assert [t.term for t in TERMS.find("Dengue fever and vaccines.", "en", "es")] == ["dengue fever", "vaccine"]
    assert failing("Dengue fever.", "Dengue.") == []


def test_terms_are_found_as_written_inflected_and_by_kind() -> None:
    assert present(["вакцина"], "новая вакцина")
    assert not present(["вакцина"], "с вакциной")
    assert present_inflected(["вакцина"], "с вакциной")
    counts = audit(Pair("en", "es", "a vaccine for fever", "una vacuna para la tos"), TERMS).counts
    assert (counts["term"], counts["term found"], counts["kind drug found"]) == (2, 1, 1)
    assert (counts["kind symptom"], counts["kind symptom found"], counts["failed term"]) == (1, 0, 1)


def test_what_is_not_checked_is_said() -> None:
    counts = audit(Pair("en", "gn", "not a fever", "x" * 11), TERMS).counts
    assert counts["not checked term"] == counts["not checked negation"] == counts["not checked language"] == 1


def test_the_identifier_has_its_say_and_a_copy_is_none_of_its_business() -> None:
    assert failing("He has a cough.", "Er hat Husten.", verdict=lambda t, c: "looks like de") == ["language"]
    assert failing("He has a cough.", "Tiene tos.", verdict=lambda t, c: "ok") == []
    assert copied(Pair("en", "ckb", "Wash your hands with soap and water.", "Wash your hands with soap, and water"))


def test_numbers_are_read_in_all_digits_and_parts_of_names_are_told_apart() -> None:
    assert [n.digits for n in numbers("٣٫٥ و ١٬٠٠٠ و १२")] == ["35", "1000", "12"]
    assert [n.named for n in numbers("COVID-19, H1N1, 10-14, 5mg")] == [True, True, True, False, False, False]
    stated, passing = digits("two of 3 million", "en")
    assert (set(stated), passing["2"], passing["3000000"]) == ({"3"}, 1, 1)


def test_signs_of_units_stand_behind_numbers_only() -> None:
    assert set(units("10 mg at 38.5 °C, 20%", "en")) == {"milligram", "celsius", "percent"}
    assert units("vitamin g and l", "en") == {}


def test_tables_name_known_languages_and_fold_to_something() -> None:
    cues = table("negation")
    assert len(set(cues) & set(fifty())) >= 38
    for code, parts in cues.items():
        assert set(parts) <= {"words", "begins", "ends", "within"}, code
        assert all(fold(form) for forms in parts.values() for form in forms), code
    for name, unit in table("units").items():
        assert unit["kind"]
        assert "en" in unit, name


GOOD = [
    *[Pair("en", "es", f"Fever number {n} came.", f"La calentura número {n} vino.") for n in range(20, 30)],
    *[Pair("en", "es", f"A vaccine number {n} came.", f"La vacuna número {n} vino.") for n in range(20, 30)],
]
RAIN = [Pair("en", "es", f"The rain number {n} came.", f"La lluvia número {n} vino.") for n in range(30, 80)]


def test_what_good_translations_say_instead_is_learned_and_counts() -> None:
    norms = learn([*GOOD, *RAIN], TERMS)
    assert norms.forms["fever"][0] in "calentura"
    assert failing("The fever came.", "La calentura vino.", norms=norms) == []
    assert failing("The fever came.", "La calentura vino.") == ["term"]
    assert failing("The fever came.", "El perro vino ya.", norms=norms) == ["term"]
    assert norms.length[0] == pytest.approx(0.3, abs=0.3)


def test_a_term_that_good_translations_often_lack_does_not_fail() -> None:
    loose = [Pair("en", "es", f"Fever {n}", chr(77 + n) * 6 + f" {n}") for n in range(20, 30)]
    norms = learn([*GOOD[10:], *loose], TERMS)
    assert failing("fever came", "vino otra", norms=norms, limits=Limits(reliability=0.8)) == []
    assert failing("vaccine came", "vino otra", norms=norms, limits=Limits(reliability=0.8)) == ["term"]


def test_a_term_in_the_place_of_another_is_found() -> None:
    norms = learn([*GOOD, *[p._replace(source="fever x", target="cosa x") for p in GOOD]], TERMS)
    pair = Pair("en", "es", "Fever came.", "La vacuna vino.")
    found = audit(pair, TERMS, None, norms, Limits(reliability=1.01)).findings
    assert [(f.item, f.wanted) for f in found] == [("fever", "no vacuna")]
    off = Limits(reliability=1.01, strangers=-1)
    assert audit(pair, TERMS, None, norms, off).findings == []


def test_norms_are_read_as_they_were_written(tmp_path: Path) -> None:
    norms = {("en", "es"): learn(GOOD, TERMS), ("en", "sw"): Norms()}
    write_norms(tmp_path / "n.json", norms)
    assert read_norms(tmp_path / "n.json") == norms
    (tmp_path / "n.json").write_text('{"en": 3}')
    with pytest.raises(DataError, match="no norms"):
        read_norms(tmp_path / "n.json")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"term,form\na,b\n", "no column source_language, language"),
        (b"source_language,term,language,form\nen,fever,es,\n", "g.csv:2: an empty cell"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_glossary_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "g.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what):
        read(path)


def test_the_command_prints_recall_and_what_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", "He has a fever.", "Tiene fiebre."), ("b", "A fever of 39", "Una tos de 38")]
    for name, at in (("en", 1), ("es", 2)):
        records = [{"id": r[0], "parallel_id": r[0], "language": name, "text": r[at], "source": "s"} for r in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    with (tmp_path / "g.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source_language", "term", "language", "form"), ("en", "fever", "es", "fiebre")])
    files = [str(tmp_path / "en.jsonl"), str(tmp_path / "es.jsonl"), "--glossary", str(tmp_path / "g.csv")]
    assert main(["corpus", "audit", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["en es"]
    assert (found["documents"], found["term_recall"]) == (2, 0.5)
    assert found["first_failing"] == {"b": ["number", "term"]}
    assert main(["corpus", "audit", *files]) == 0
    assert "b fails number, term" in capsys.readouterr().out
    assert main(["corpus", "audit", *files, "--learn", str(tmp_path / "n.json")]) == 0
    assert main(["corpus", "audit", *files, "--norms", str(tmp_path / "n.json")]) == 0
    (tmp_path / "es.jsonl").write_text('{"id": "z", "language": "es", "text": "x", "source": "s"}\n')
    assert main(["corpus", "audit", *files]) == 3
