"""How much of what points at a person is found, class by class and language by language; a developer's command.

    PYTHONPATH=src python benchmarks/privacy.py [--part tune|second|third|fourth|last] [--each N] [--seed S] [--misses]
    PYTHONPATH=src python benchmarks/privacy.py --speed FOLDER

Sentences are made from benchmarks/privacy_phrases.yaml. All is invented: numbers are drawn, and their
check digits are computed here, by other code than the detector's. As many sentences hold nothing
personal: numbers of trials, articles, doses, ranges, help lines and numbers whose check digits are wrong.
"""

# ruff: noqa: E501, PLR2004, S311 - tables of shapes, and weights of published check digits

import argparse
import datetime
import json
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import yaml

from polyclinic.corpus.privacy.personal import find
from polyclinic.corpus.privacy.privacy import privacy, suspects
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import PrivacySection

PHRASES = yaml.safe_load((Path(__file__).parent / "privacy_phrases.yaml").read_text("utf-8"))
ORDER = PHRASES["order"]
PARTS = ("tune", "second", "third", "fourth", "last")
LANGUAGES = list(PHRASES["tune"])
NATIVE = {
    "ar": "٠١٢٣٤٥٦٧٨٩",
    "ckb": "۰۱۲۳۴۵۶۷۸۹",
    "hi": "०१२३४५६७८९",
    "th": "๐๑๒๓๔๕๖๗๘๙",
    "zh": "０１２３４５６７８９",
    "ja": "０１２３４５６７８９",
}
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "ar": "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
    "hi": "जनवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर",
    "th": "มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน ตุลาคม พฤศจิกายน ธันวาคม",
    "sw": "Januari Februari Machi Aprili Mei Juni Julai Agosti Septemba Oktoba Novemba Desemba",
}
JOINED = {"es": " de ", "pt": " de "}
R = random.Random


class Item(NamedTuple):
    """A sentence, and where in it something personal stands; kind is empty where nothing does."""

    language: str
    text: str
    kind: str
    start: int
    end: int
    about: str  # the class a sentence with nothing personal imitates


def digits(r: R, n: int, first: str = "123456789") -> str:
    return r.choice(first) + "".join(r.choice(string.digits) for _ in range(n - 1))


def letters(r: R, n: int, of: str = string.ascii_uppercase) -> str:
    return "".join(r.choice(of) for _ in range(n))


def born(r: R) -> datetime.date:
    return datetime.date(1931, 1, 1) + datetime.timedelta(days=r.randrange(25000))


# Check digits ---------------------------------------------------------------------------------------------


def luhn_digit(body: str) -> str:
    doubled = [sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body))]
    return str(-sum(doubled) % 10)


def dihedral(a: int, b: int) -> int:
    """Multiply in the group of the ten symmetries of a pentagon."""
    turn = (a + b if a < 5 else a - b) % 5
    return turn if (a < 5) == (b < 5) else turn + 5


def verhoeff_digit(body: str) -> str:
    """Return the digit that makes the product over permuted digits the identity (Verhoeff 1969)."""
    step = {0: 1, 1: 5, 2: 7, 3: 6, 4: 2, 5: 8, 6: 3, 7: 0, 8: 9, 9: 4}

    def moved(digit: int, times: int) -> int:
        for _ in range(times % 8):
            digit = step[digit]
        return digit

    for last in range(10):
        total = 0
        for place, digit in enumerate([last, *map(int, reversed(body))]):
            total = dihedral(total, moved(digit, place))
        if total == 0:
            return str(last)
    raise AssertionError


def weighted(body: str, weights: str | list[int]) -> int:
    return sum(int(d) * int(w) for d, w in zip(body, weights, strict=True))


def aadhaar(r: R) -> str:
    body = digits(r, 11, "23456789")
    whole = body + verhoeff_digit(body)
    return f"{whole[:4]} {whole[4:8]} {whole[8:]}"


DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"  # pragma: allowlist secret


def dni(r: R) -> str:
    body = digits(r, 8)
    return body + DNI_LETTERS[int(body) % 23]


def nie(r: R) -> str:
    head, body = r.choice("XYZ"), digits(r, 7)
    return head + body + DNI_LETTERS[int(str("XYZ".index(head)) + body) % 23]


def resident_cn(r: R) -> str:
    body = r.choice(["110105", "310104"]) + born(r).strftime("%Y%m%d") + digits(r, 3, "0123456789")
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
    return body + "10X98765432"[total % 11]


def rrn_kr(r: R) -> str:
    day = born(r)
    body = day.strftime("%y%m%d") + r.choice("12") + f"{r.randrange(96):02d}" + digits(r, 3, "0123456789")
    return f"{body[:6]}-{body[6:]}{(11 - weighted(body, '234567892345') % 11) % 10}"


def pesel(r: R) -> str:
    body = born(r).strftime("%y%m%d") + digits(r, 4, "0123456789")
    return body + str(-weighted(body, "1379137913") % 10)


def personnummer(r: R) -> str:
    body = born(r).strftime("%y%m%d") + digits(r, 3, "123456789")
    return f"{body[:6]}-{body[6:]}{luhn_digit(body)}"


def za_id(r: R) -> str:
    body = born(r).strftime("%y%m%d") + digits(r, 4, "0123456789") + r.choice("01") + "8"
    return body + luhn_digit(body)


def cnp_ro(r: R) -> str:
    body = r.choice("12") + born(r).strftime("%y%m%d") + r.choice(["12", "27", "40"]) + f"{r.randrange(1, 999):03d}"
    return body + str({10: 1}.get(rest := weighted(body, "279146358279") % 11, rest))


def egn_bg(r: R) -> str:
    body = born(r).strftime("%y%m%d") + digits(r, 3, "0123456789")
    return body + str(weighted(body, [2, 4, 8, 5, 10, 9, 7, 3, 6]) % 11 % 10)


def tc_tr(r: R) -> str:
    body = digits(r, 9)
    odd, even = sum(map(int, body[::2])), sum(map(int, body[1::2]))
    tenth = (7 * odd - even) % 10
    return f"{body}{tenth}{(odd + even + tenth) % 10}"


def pin_th(r: R) -> str:
    body = digits(r, 12, "12345678")
    whole = body + str((11 - weighted(body, list(range(13, 1, -1))) % 11) % 10)
    return "-".join((whole[0], whole[1:5], whole[5:10], whole[10:12], whole[12]))


def belgian(r: R) -> str:
    day, serial = born(r), r.randrange(1, 998)
    body = f"{day:%y%m%d}{serial:03d}"
    return f"{day:%y.%m.%d}-{serial:03d}.{97 - int(body) % 97:02d}"


def rut_cl(r: R) -> str:
    body = digits(r, 8, "12")
    total = sum(int(d) * (2 + i % 6) for i, d in enumerate(reversed(body)))
    return f"{body[:2]}.{body[2:5]}.{body[5:]}-{'0K987654321'[total % 11]}"


def cpf(r: R) -> str:
    body = digits(r, 9)
    for _ in range(2):
        rest = weighted(body, list(range(len(body) + 1, 1, -1))) % 11
        body += str(0 if rest < 2 else 11 - rest)
    return f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"


def codice_fiscale(r: R) -> str:
    day = born(r)
    consonants = "BCDFGHLMNPRSTVZ"
    body = letters(r, 6, consonants) + f"{day:%y}" + "ABCDEHLMPRST"[day.month - 1] + f"{day.day:02d}" + "H501"
    odd = {"0": 1, "1": 0, "2": 5, "3": 7, "4": 9, "5": 13, "6": 15, "7": 17, "8": 19, "9": 21}
    odd |= dict(
        zip(
            string.ascii_uppercase,
            (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
            strict=True,
        )
    )
    total = sum(odd[c] if i % 2 == 0 else (int(c) if c.isdigit() else ord(c) - 65) for i, c in enumerate(body))
    return body + chr(65 + total % 26)


def steuer_id(r: R) -> str:
    pool = r.sample(string.digits, 9)
    chosen = [*pool, pool[0]]
    r.shuffle(chosen)
    while chosen[0] == "0" or any(a == b == c for a, b, c in zip(chosen, chosen[1:], chosen[2:], strict=False)):
        r.shuffle(chosen)
    product = 10
    for digit in chosen:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return "".join(chosen) + str((11 - product) % 10)


def inn_ru(r: R) -> str:
    body = digits(r, 10)
    body += str(weighted(body, [7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10)
    return body + str(weighted(body, [3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10)


def snils_ru(r: R) -> str:
    body = digits(r, 9)
    total = weighted(body, "987654321") % 101 % 100
    return f"{body[:3]}-{body[3:6]}-{body[6:]} {total:02d}"


def nir_fr(r: R) -> str:
    day = born(r)
    body = (
        r.choice("12")
        + f"{day:%y%m}"
        + r.choice(["75", "13", "69"])
        + f"{r.randrange(1, 400):03d}{r.randrange(1, 999):03d}"
    )
    whole = body + f"{97 - int(body) % 97:02d}"
    return " ".join((whole[0], whole[1:3], whole[3:5], whole[5:7], whole[7:10], whole[10:13], whole[13:]))


def ahv_ch(r: R) -> str:
    body = "756" + digits(r, 9, string.digits)
    last = -sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(body)) % 10
    return f"756.{body[3:7]}.{body[7:11]}.{body[11]}{last}"


def ssn_us(r: R) -> str:
    return f"{r.randrange(1, 666):03d}-{r.randrange(1, 100):02d}-{r.randrange(1, 10000):04d}"


def sin_ca(r: R) -> str:
    body = digits(r, 8, "1234567")
    whole = body + luhn_digit(body)
    return "-".join((whole[:3], whole[3:6], whole[6:]))


def nhs(r: R) -> str:
    while True:
        body = digits(r, 9, "4567")
        check = 11 - weighted(body, [10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11
        if check != 10:
            return f"{body[:3]} {body[3:6]} {body[6:]}{check % 11}"


def card(r: R) -> str:
    body = r.choice(["4", "51", "55"]) + digits(r, 14)
    body = body[:15]
    whole = body + luhn_digit(body)
    return r.choice(["", " ", "-"]).join((whole[:4], whole[4:8], whole[8:12], whole[12:]))


def iban(r: R) -> str:
    country, body = r.choice(
        [("DE", digits(r, 18)), ("FR", digits(r, 23)), ("GB", "NWBK" + digits(r, 14)), ("SA", digits(r, 20))]
    )
    as_number = "".join(str(int(c, 36)) for c in f"{body}{country}00")
    whole = f"{country}{98 - int(as_number) % 97:02d}{body}"
    return " ".join(whole[i : i + 4] for i in range(0, len(whole), 4)) if r.random() < 0.5 else whole


def vin_number(r: R) -> str:
    rows = ("ABCDEFGH", "JKLMN.P.R", ".STUVWXYZ")
    value = {c: i + 1 for row in rows for i, c in enumerate(row)} | {d: int(d) for d in string.digits}
    body = letters(r, 8, "ABCDEFGHJKLMNPRSTUVWXYZ") + "0" + letters(r, 2, "ABCDEFGH") + digits(r, 6)
    weights = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2]
    rest = sum(value[c] * w for c, w in zip(body, weights, strict=True)) % 11
    return f"{body[:8]}{'X' if rest == 10 else rest}{body[9:]}"


def imei(r: R) -> str:
    body = "35" + digits(r, 12)
    whole = body + luhn_digit(body)
    return "-".join((whole[:2], whole[2:8], whole[8:14], whole[14]))


def mac(r: R) -> str:
    return r.choice(":-").join(f"{r.randrange(256):02X}" for _ in range(6))


ALONE: dict[str, list[Callable[[R], str]]] = {
    "NATIONAL_ID": [aadhaar, dni, nie, resident_cn, rrn_kr, pesel, personnummer, za_id, cnp_ro, egn_bg, tc_tr, pin_th, belgian, rut_cl],
    "TAX_ID": [cpf, codice_fiscale, steuer_id, inn_ru],
    "SOCIAL_SECURITY": [nir_fr, ahv_ch, ssn_us, sin_ca, snils_ru],
    "HEALTH_ID": [nhs],
    "CARD": [card],
    "BANK_ACCOUNT": [iban],
    "VEHICLE": [vin_number],
    "DEVICE": [imei, mac],
    "PHONE": [lambda r: f"+{r.choice(['44 20', '49 30', '91', '254 7', '86 21', '33 1'])} {digits(r, 4)} {digits(r, 4)}"],
    "EMAIL": [lambda r: f"{r.choice(['ana.lopez', 'm_keller', 'wangli'])}{r.randrange(99)}@{r.choice(['example.org', 'mail.example.com', 'example.co.ke'])}"],
    "IP": [
        lambda r: f"{r.randrange(11, 223)}.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(10, 255)}",
        lambda r: "2001:db8:" + ":".join(f"{r.randrange(4096, 65536):x}" for _ in range(6)),
    ],
    "PROFILE_URL": [
        lambda r: f"https://{r.choice(['www.facebook.com', 'instagram.com', 't.me', 'vk.com'])}/{r.choice(['ana.lopez', 'wangli', 'mkeller'])}{r.randrange(99)}",
        lambda r: f"https://portal.example.org/patients/{digits(r, 6)}",
    ],
}  # fmt: skip

PHONES = {
    "en": "({a}) {b}-{d}", "es": "6{a2} {a2} {b2} {c2}", "fr": "06 {a2} {b2} {c2} {e2}", "de": "030/{d}{a2}", "pt": "9{a2} {b} {c}", "it": "3{a2} {b}{d}",
    "ru": "8 ({a}) {b}-{a2}-{b2}", "ar": "05{a2} {b} {c}", "ckb": "0750 {a} {d}", "zh": "13{a}{b}{c}", "ja": "090-{d}-{d2}", "ko": "010-{d}-{d2}",
    "hi": "98{a} {d}{e}", "th": "08{e}-{a}-{d}", "sw": "07{a2} {b} {c}", "vi": "09{a2} {b} {c}",
}  # fmt: skip
PLATES = {
    "en": "AB{a2} CDE", "es": "{d} BCD", "fr": "AB-{a}-CD", "de": "B-AB {d}", "pt": "AA-{a2}-BC", "it": "AB {a} CD", "ru": "А{a}ВС {a2}", "ar": "{d} أ ب ج",
    "ckb": "{d}{e} أ", "zh": "京A{d}{e}", "ja": "品川 {a} あ {a2}-{b2}", "ko": "{a2}가 {d}", "hi": "MH {a2} AB {d}", "th": "กข {d}", "sw": "KBA {a}A", "vi": "29A-{a}.{b2}",
}  # fmt: skip


def filled(shape: str, r: R) -> str:
    parts = {"a": 3, "b": 3, "c": 3, "d": 4, "d2": 4, "a2": 2, "b2": 2, "c2": 2, "e2": 2, "e": 1}
    return shape.format(**{name: digits(r, n) for name, n in parts.items()})


def date(r: R, language: str) -> str:
    day = born(r)
    year = day.year + 543 if language == "th" and r.random() < 0.5 else day.year
    forms = [
        f"{day.day:02d}/{day.month:02d}/{year}",
        f"{year}-{day.month:02d}-{day.day:02d}",
        f"{day.day}.{day.month}.{year}",
    ]
    if language in MONTHS:
        month, join = MONTHS[language].split()[day.month - 1], JOINED.get(language, " ")
        forms += [f"{day.day}{'.' * (language == 'de')}{join}{month}{join}{year}"] * 2
        forms += [f"{month} {day.day}, {year}"] * (language == "en")
    forms += [f"{year}年{day.month}月{day.day}日"] * 3 * (language in ("zh", "ja"))
    forms += [f"昭和{r.randrange(10, 64)}年{day.month}月{day.day}日"] * (language == "ja")
    forms += [f"{year}년 {day.month}월 {day.day}일"] * 3 * (language == "ko")
    forms += [f"{day.day} tháng {day.month} năm {year}"] * 3 * (language == "vi")
    return r.choice(forms)


def announced(r: R, kind: str, language: str) -> str:
    """Return a value of a class as it stands after a phrase."""
    if kind in ("BIRTH_DATE", "CARE_DATE"):
        return date(r, language)
    if kind == "PHONE":
        return filled(PHONES[language], r)
    if kind == "VEHICLE":
        return filled(PLATES[language], r)
    if kind == "HANDLE":
        return r.choice(
            [
                f"@{letters(r, 5, string.ascii_lowercase)}_{r.randrange(99)}",
                f"{letters(r, 6, string.ascii_lowercase)}{r.randrange(10, 99)}",
            ]
        )
    if kind in ("EMAIL", "IP", "PROFILE_URL", "CARD"):
        return r.choice(ALONE[kind])(r)
    forms = {
        "DEVICE": [f"{letters(r, 2)}{digits(r, 7)}", digits(r, 10), f"SN-{digits(r, 6)}"],
        "NATIONAL_ID": [digits(r, 10), f"{letters(r, 2)}{digits(r, 7)}", digits(r, 12), f"{digits(r, 4)} {digits(r, 4)} {digits(r, 4)}"],
        "TAX_ID": [digits(r, 9), digits(r, 11), f"{digits(r, 3)} {digits(r, 3)} {digits(r, 3)}"],
        "SOCIAL_SECURITY": [digits(r, 10), f"{digits(r, 3)}-{digits(r, 2)}-{digits(r, 4)}", digits(r, 12)],
        "PASSPORT": [f"{letters(r, 1)}{digits(r, 8)}", f"{letters(r, 2)}{digits(r, 7)}", f"{digits(r, 2)} {digits(r, 2)} {digits(r, 6)}"],
        "DRIVING_LICENCE": [f"{letters(r, 1)}{digits(r, 7)}", digits(r, 9), f"{letters(r, 2)}-{digits(r, 8)}"],
        "RECORD": [digits(r, 6), digits(r, 8), f"{letters(r, 1)}-{digits(r, 6)}", f"{digits(r, 4)}/{r.randrange(10, 26)}"],
        "SPECIMEN": [f"{letters(r, 1)}{r.randrange(10, 26)}-{digits(r, 5)}", digits(r, 8), f"{letters(r, 2)}{digits(r, 6)}"],
        "HEALTH_ID": [digits(r, 10), f"{letters(r, 1)}{digits(r, 9)}", f"{letters(r, 3)}-{digits(r, 8)}"],
        "PRACTITIONER": [digits(r, 6), digits(r, 9), f"{letters(r, 2)}-{digits(r, 5)}"],
        "BANK_ACCOUNT": [digits(r, 10), digits(r, 16), f"{digits(r, 4)}-{digits(r, 4)}-{digits(r, 6)}"],
    }  # fmt: skip
    return r.choice(forms[kind])


def wrong(r: R, value: str) -> str:
    """Return a number with its last digit changed, so that a check over all digits fails."""
    at = max(i for i, c in enumerate(value) if c.isdigit())
    return value[:at] + str((int(value[at]) + r.randrange(1, 10)) % 10) + value[at + 1 :]


LOOKS: list[Callable[[R], str]] = [
    lambda r: f"NCT{digits(r, 8, '0')}",
    lambda r: f"10.{digits(r, 4)}/j.{letters(r, 4, string.ascii_lowercase)}.{r.randrange(1990, 2025)}.{digits(r, 6)}",
    lambda r: f"ISBN 978-{digits(r, 1)}-{digits(r, 3)}-{digits(r, 5)}-{digits(r, 1)}",
    lambda r: f"ISSN {digits(r, 4)}-{digits(r, 4)}",
    lambda r: f"PMID {digits(r, 8)}",
    lambda r: f"ISRCTN{digits(r, 8)}",
    lambda r: f"J{digits(r, 2)}.{digits(r, 3)}",
    lambda r: f"{r.randrange(90)}.{digits(r, 4)}° N, {r.randrange(90)}.{digits(r, 4)}° E",
    lambda r: f"{r.randrange(100, 180)}/{r.randrange(60, 110)} mmHg",
    lambda r: f"{r.randrange(1, 9) * 125} mg/{r.choice([6, 8, 12])} h",
    lambda r: f"{r.randrange(1, 99)},{digits(r, 3)},{digits(r, 3)}",
    lambda r: f"{r.randrange(1, 99)} {digits(r, 3)} {digits(r, 3)}",
    lambda r: f"{r.randrange(1950, 2000)}-{r.randrange(2000, 2025)}",
    lambda r: f"{r.randrange(1950, 2025)}",
    lambda r: f"p = 0.{digits(r, 4, '0')}",
    lambda r: (
        f"{r.randrange(1, 90)}.{digits(r, 1)} (95 % CI {r.randrange(1, 30)}.{digits(r, 1)}-{r.randrange(30, 90)}.{digits(r, 1)})"
    ),
    lambda r: f"EC {r.randrange(1, 7)}.{r.randrange(1, 24)}.{r.randrange(1, 30)}.{r.randrange(1, 120)}",
    lambda r: f"{digits(r, 2)}-{digits(r, 2)}-{digits(r, 1)}",
    lambda r: f"{r.randrange(24):02d}:{r.randrange(60):02d}:{r.randrange(60):02d}",
    lambda r: r.choice(["SARS-CoV-2", "HLA-B27", "CYP2D6", "IL-17A", "CD4", "COVID-19", "H1N1", "PM2.5"]),
    lambda r: f"{r.randrange(2000, 2025)}-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}",
    lambda r: f"https://www.who.int/news/item/{digits(r, 2)}-{digits(r, 2)}-2020",
    lambda r: f"rs{digits(r, 8)}",
    lambda r: f"PMC{digits(r, 7)}",
    lambda r: f"{digits(r, 1)}×10^{r.randrange(2, 12)}",
    lambda r: f"{r.randrange(2, 9)}.{digits(r, 2)} × 10{digits(r, 1)}/L",
    lambda r: "@WHO",
]
AFTER: list[Callable[[R], str]] = [  # not personal, whatever word stands before
    lambda r: f"{r.randrange(2, 99)} %",
    lambda r: f"{r.randrange(1990, 2010)}-{r.randrange(2010, 2025)}",
    lambda r: f"{r.randrange(2, 99)}",
    lambda r: f"{r.randrange(1, 9)}.{digits(r, 1)}",
    lambda r: f"{r.randrange(1990, 2025)}",
    lambda r: f"{r.randrange(2, 99)},{digits(r, 3)}",
]
HELP = [
    "112",
    "911",
    "999",
    "116 117",
    "116 123",
    "1-800-232-4636",
    "0800 111 0 111",
    "988",
    "1800 425 1234",
    "15",
    "120",
    "119",
]


def place(r: R, language: str, frame: str, value: str, kind: str, phrase: str = "", about: str = "") -> Item:
    if language in NATIVE and r.random() < 0.4 and kind not in ("EMAIL", "IP", "PROFILE_URL", "HANDLE"):
        value = value.translate({ord(d): n for d, n in zip(string.digits, NATIVE[language], strict=True)})
    if frame.startswith("{c}"):
        phrase = phrase[:1].upper() + phrase[1:]
    text = frame.replace("{c}", phrase).replace("{v}", "\0")
    start = text.index("\0")
    return Item(language, text.replace("\0", value), kind, start, start + len(value), about)


def make(part: str, seed: int, each: int) -> Iterator[Item]:
    """Yield `each` sentences of every class and language that hold a find, and as many that do not."""
    r = random.Random(f"{part} {seed}")
    for language in LANGUAGES:
        own = PHRASES[part][language]
        known = own.get("words") or [
            r.choice(two) for two in zip(*(PHRASES[p][language]["words"] for p in PARTS[:2]), strict=True)
        ]
        for kind, phrase in zip(ORDER, known, strict=True):
            for n in range(each):
                alone = kind in ALONE and n % 2
                value = r.choice(ALONE[kind])(r) if alone else announced(r, kind, language)
                yield place(r, language, r.choice(own["plain" if alone else "frames"]), value, kind, phrase, kind)
            for n in range(each):
                yield nothing(r, language, own, kind, phrase, n)


def nothing(r: R, language: str, own: dict[str, list[str]], kind: str, phrase: str, n: int) -> Item:
    """Return a sentence with nothing personal that looks like one of a class."""
    if n % 3 == 0:
        value = r.choice(HELP) if kind == "PHONE" else r.choice(AFTER)(r)
        return place(r, language, r.choice(own["frames"]), value, "", phrase, kind)
    checked = [
        make
        for make in ALONE.get(kind, ())
        if kind in ("NATIONAL_ID", "TAX_ID", "CARD", "VEHICLE", "BANK_ACCOUNT") and make not in (iban,)
    ]
    value = wrong(r, r.choice(checked)(r)) if checked and n % 3 == 1 else r.choice(LOOKS)(r)
    return place(r, language, r.choice(own["plain"]), value, "", "", kind)


class Score(NamedTuple):
    """Counts by class and language."""

    there: Counter[tuple[str, str]]
    hidden: Counter[tuple[str, str]]
    named: Counter[tuple[str, str]]
    found: Counter[tuple[str, str]]
    false: Counter[tuple[str, str]]
    misses: list[str]


def score(items: Iterator[Item]) -> Score:
    """Compare finds with what was put in; a value counts as hidden where none of its digits or letters is left."""
    out = Score(Counter(), Counter(), Counter(), Counter(), Counter(), [])
    held = list(items)
    likely = set(suspects(pa.array([item.text for item in held])))
    for number, item in enumerate(held):
        spans = find(item.text) if number in likely else []
        if item.kind:
            place = (item.kind, item.language)
            covered = {i for span in spans for i in range(span.start, span.end)}
            left = [i for i in range(item.start, item.end) if item.text[i].isalnum() and i not in covered]
            out.there[place] += 1
            out.hidden[place] += not left
            out.named[place] += not left and any(
                s.kind == item.kind and s.start < item.end and s.end > item.start for s in spans
            )
            if left:
                out.misses.append(f"{item.kind} {item.language}: {item.text}  ->  {spans}")
        for span in spans:
            hit = bool(item.kind) and span.start < item.end and span.end > item.start
            out.found[span.kind, item.language] += 1
            if not hit:
                out.false[span.kind, item.language] += 1
                out.misses.append(
                    f"FALSE {span.kind} {item.language}: {item.text}  ->  {item.text[span.start : span.end]}"
                )
    return out


def table(found: Score, axis: int, names: list[str]) -> list[str]:
    """Return recall and precision along classes (0) or languages (1), and over all."""
    lines = []
    for name in (*names, ""):
        there, hidden, named, spans, false = (
            sum(n for key, n in c.items() if name in ("", key[axis])) for c in found[:5]
        )
        precision = 100 * (spans - false) / spans if spans else float("nan")
        lines.append(
            f"| {name or 'all'} | {there} | {100 * hidden / there:.2f} | {100 * named / there:.2f} | {spans} | {precision:.2f} |"
        )
    return lines


def speed(folder: Path) -> None:
    """Print documents a CPU second of the step on the JSON lines of a folder; the best of three."""
    texts = [
        json.loads(line)["text"] for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    empty = dict.fromkeys(DOCUMENTS.names, "")
    rows = [{**empty, "id": f"d{n}", "turns": [{"role": "text", "content": t}]} for n, t in enumerate(texts)]
    batches = [pa.RecordBatch.from_pylist(rows[i : i + 1024], schema=DOCUMENTS) for i in range(0, len(rows), 1024)]
    times = []
    for _ in range(3):
        began = time.process_time()
        for batch in batches:
            privacy(batch, PrivacySection(), "speed")
        times.append(time.process_time() - began)
    share = sum(len(suspects(batch.column("turns").flatten().field("content"))) for batch in batches) / len(texts)
    size = sum(len(t.encode()) for t in texts) / len(texts)
    print(f"{len(texts)} documents of {size:.0f} bytes, {100 * share:.1f} % looked at closely: ", end="")
    print(f"{len(texts) / min(times):,.0f} documents a CPU second")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=PARTS, default=PARTS[-1])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=12)
    parser.add_argument("--misses", action="store_true")
    parser.add_argument("--speed", type=Path, metavar="FOLDER", help="of .jsonl files with a field text")
    given = parser.parse_args()
    if given.speed:
        speed(given.speed)
        return
    found = score(make(given.part, given.seed, given.each))
    if given.misses:
        print("\n".join(found.misses))
    head = ["items", "hidden %", "of its class %", "finds", "precision %"]
    for axis, names in ((0, sorted(ORDER)), (1, LANGUAGES)):
        print("\n".join([f"| | {' | '.join(head)} |", "|---" * 6 + "|", *table(found, axis, names), ""]))


if __name__ == "__main__":
    main()
