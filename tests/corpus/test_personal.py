"""Finding: what is of a person is found in every script, and what only looks like it is left alone."""

import random
import runpy
import time
from pathlib import Path

import pytest

from polyclinic.corpus.privacy import id_numbers
from polyclinic.corpus.privacy.personal import find, fold

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "privacy.py"))


def kinds(text: str) -> list[tuple[str, str]]:
    return [(text[start:end], kind) for start, end, kind in find(text)]


@pytest.mark.parametrize(
    ("text", "part", "kind"),
    [
        ("출생일: 1985년 3월 2일", "1985년 3월 2일", "BIRTH_DATE"),
        ("生年月日：昭和60年3月2日", "昭和60年3月2日", "BIRTH_DATE"),
        ("तारीख: जन्म तिथि १२/०३/१९८५", "१२/०३/१९८५", "BIRTH_DATE"),
        ("born on March 12, 1985", "March 12, 1985", "BIRTH_DATE"),
        ("الهاتف: ٠١٢٣٤٥٦٧٨٩", "٠١٢٣٤٥٦٧٨٩", "PHONE"),
        ("手机号１３８１２３４５６７８。", "１３８１２３４５６７８", "PHONE"),
        ("Handynummer 0171/5552031", "0171/5552031", "PHONE"),
        ("HN 5512043 was seen", "5512043", "RECORD"),
        ("Phone:\n0711 558 2031", "0711 558 2031", "PHONE"),
        ("5512043 is her file number", "5512043", "RECORD"),
        ("zora [at] example [dot] org", "zora [at] example [dot] org", "EMAIL"),
        ("from 2001:db8:0:1:1:1:1:1 again", "2001:db8:0:1:1:1:1:1", "IP"),
        ("card 00:1B:44:11:3A:B7 fitted", "00:1B:44:11:3A:B7", "DEVICE"),
        ("https://portal.example.org/patients/8813", "https://portal.example.org/patients/8813", "PROFILE_URL"),
    ],
)
def test_a_find_has_its_bounds_and_class(text: str, part: str, kind: str) -> None:
    assert kinds(text) == [(part, kind)]


@pytest.mark.parametrize(
    "text",
    [
        "Registered as NCT04280705, doi 10.1056/NEJMoa2001017, PMID 32109013, ISBN 978-3-16-148410-0.",
        "Call 112 or 911, 116 117, 1-800-232-4636, 0800 111 0 111, WHO: phone +41 22 791 2111.",
        "The phone survey of 2019-2021 reached 12,345 people; calls rose by 45 %.",
        "Passport offices opened in 2020. Born in 1985, she was admitted in 2019.",
        "ICD-10 J45.901, EC 3.4.21.4, CAS 50-78-2, HLA-B27, CYP2D6, SARS-CoV-2, version 2.10.14.211.",
        "500 mg/12 h, 120/80 mmHg, 0.05-0.10, 1,234,567 doses, 12 345 678 people, 37.5 °C.",
        "47.3769° N, 8.5417° E at 12:30:45, between 1990-1995 and 2001.",
        "Follow @WHO on Twitter about COVID-19 and https://www.who.int/news/item/12-03-2020.",
        "Insurance covered 2019-20; the telephone was answered in 30 s. Serial number of measures: 12.",
        "infants born 12 weeks before term, born in 24 centres",
    ],
)
def test_what_only_looks_personal_is_left_alone(text: str) -> None:
    assert kinds(text) == []


def test_of_two_words_the_nearer_one_says_the_class() -> None:
    text = "Her phone and passport: XK4419027, her MRN 66190442"
    assert kinds(text) == [("XK4419027", "PASSPORT"), ("66190442", "RECORD")]


def test_finds_far_apart_are_found_each() -> None:
    filler = "The nurse came early and washed her hands. " * 20
    assert [kind for _, kind in kinds(f"MRN 66190442. {filler}a@b.org {filler}SSN 219-44-1077")] == [
        "RECORD",
        "EMAIL",
        "SOCIAL_SECURITY",
    ]


def test_folding_keeps_the_length() -> None:
    assert fold("٣ ३ ๓ ３ － ：İ") == "3 3 3 3 - :İ"


@pytest.mark.parametrize("kind", ["NATIONAL_ID", "TAX_ID", "SOCIAL_SECURITY", "CARD", "BANK_ACCOUNT", "VEHICLE"])
def test_numbers_with_check_digits_need_no_word_and_others_do(kind: str) -> None:
    r = random.Random(3)  # noqa: S311
    for make in BENCH["ALONE"][kind]:
        values = [make(r) for _ in range(20)]
        found = [kinds(f"It says {value} there.")[0] for value in values]
        assert [part for part, _ in found] == values
        assert [name for _, name in found].count(kind) >= 15  # a number can be one of two countries
        if make.__name__ not in ("ssn_us", "iban", "vin_number"):  # no check digit; a shorter one; it is not the last
            broken = [BENCH["wrong"](r, value) for value in values]
            assert sum(bool(kinds(f"It says {value} there.")) for value in broken) <= 4, broken[0]


@pytest.mark.parametrize(
    ("name", "make"), [("vin", "vin_number"), ("snils", "snils_ru"), ("luhn", "card"), ("luhn", "sin_ca")]
)
def test_own_checks_agree_with_another_way_to_compute_them(name: str, make: str) -> None:
    r = random.Random(5)  # noqa: S311
    check = id_numbers.check(name)
    for _ in range(50):
        value = BENCH[make](r)
        others = [value[:-1] + digit for digit in "0123456789"]
        assert [other for other in others if check(other)] == [value]


def test_an_account_number_ends_where_its_check_digits_hold() -> None:
    assert id_numbers.iban("DE89 3704 0044 0532 0130 00 BANK") == len("DE89 3704 0044 0532 0130 00")
    assert id_numbers.iban("DE88 3704 0044 0532 0130 00") == 0


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "1 ",
        "tel ",
        "a@",
        "1.2.",
        "http://a/",
        "A1",
        "dob 1 ",
        "@a.",
        "1-",
        "电话",
        "a." * 9 + "/",
        "0:",
        "born 1a",
    ],
)
def test_no_text_makes_the_search_slow(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    began = time.process_time()
    find(f"{text} tel 1")
    assert time.process_time() - began < 3
